"""The models that the cluster serves, as their cards describe them.

Chosen: the card is read as a data file, next to the code that serves the model, whose folder is found without running any of that
code. Refused: importing the agents' package (it belongs to the workers' side, and brings onnxruntime into the server), a second list
of the same facts here, and asking a worker, without whom nobody could then see what is served.
"""
