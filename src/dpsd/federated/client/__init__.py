"""A client of a federation: it answers requests from its own teacher, and from its own budget.

Nothing here depends on how requests travel. The server is trusted with nothing: it sees releases
alone, and what it may ask is limited by what the client's owner allowed.
"""
