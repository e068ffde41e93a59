"""gRPC at the edge: messages in, domain operations, messages out.

``method`` wraps every method of every service with what all of them need (who calls, may they, errors as ``google.rpc`` details);
``once`` makes a repeated request_id harmless; ``pages`` cuts lists. Then one module for each service.
"""
