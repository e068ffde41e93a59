"""Surfaces for people. Each is a client of the gRPC API and nothing more."""
