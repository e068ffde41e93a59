"""The supervisor behind ``fermata up``: starts server, Chroma, Ray and the cluster's controller, keeps them
alive, ends them all.

Chosen: one small asyncio process that holds no state of the product. Every child has a session of its own and
dies with the supervisor (pdeathsig); the supervisor is a subreaper, so that whatever a child leaves behind
comes to it and is ended too. What can be refused is refused before anything is started. Refused: systemd or
supervisord (a newcomer has neither), threads for the children in one process (nothing in it could be killed
or restarted alone), and process lists kept in pid files (they lie).
"""
