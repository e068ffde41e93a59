"""What a conversation with agents is, on any surface.

A pure core: events, approvals and latches go in, a view comes out; a person's words go in, an intent comes
out. Terminal and Slack render the view and carry out the intents, each in its own way. A core that talks to
the server itself was refused: it could not be tested with a list of events, nor replayed.

All text of models, tools and documents is untrusted. It is made harmless where it enters the view, so no
surface can forget to.
"""
