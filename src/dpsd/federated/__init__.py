"""Federated transcription: clients keep their models and answer from their own budgets (FedDPSD).

A server synthesises queries and asks clients, each of which has a teacher, a ledger and a cap of
its own. A client privatises its answers before they leave it, so the server sees releases alone. It
learns from the panel of all clients, as each knows some classes better than others.
"""
