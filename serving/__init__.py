"""The serving side: the client, its commands, the drawing page and a local model server.

In: model versions that the trainer publishes. Out: predictions over gRPC. Next: contract.py, the names that both sides
share; then client/.
"""

__version__ = "0.1.0"
