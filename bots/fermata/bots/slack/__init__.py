"""Fermata in Slack: talk, approve, change, halt.

A pure client of the gRPC API. The process keeps nothing that it could lose: which thread a Slack thread is, who an account is, and
which message shows what are the server's to keep, and every message is what the server says now, drawn again. So it may die at any
instant, and several of it may run at once.

- ``bot`` wires Bolt's handlers, which serve Socket Mode and HTTP alike; ``serving`` runs them.
- ``conversations``, ``clicks``, ``modals``, ``commands``, ``home`` take what people do; ``following`` watches threads.
- ``messages``, ``cards``, ``blocks`` draw the conversation's view as blocks, and are pure; ``outbox`` brings them to Slack, at
  least once, paced by channel, and never twice under one subject.

Chosen: the server decides at the click. The bot names the account that clicked, and the server looks up who that is and what they
may do. Refused: a copy of roles in the bot, which would be stale when it matters; arguments behind a button, which would be trusted
when they come back; Slack's event ids as request ids, because a mention comes as two events and is one message.

Text of agents, tools and documents only ever stands in ``plain_text`` objects, which Slack does not parse: it can't mention, link or
format. Where it would be cut, a card offers no Approve: nobody approves what they could not read.
"""
