"""The server of a federation: it makes queries, asks all clients, and teaches the student.

It sees releases alone, and trusts no client: what a client says is read through a confusion matrix
that is estimated from all releases together (:mod:`dpsd.distillation.panel`).
"""
