"""Federated transcription on Flower: messages, apps, simulation, and real servers and clients.

This is the only package of dpsd that imports ``flwr``; it needs the extra ``federated``.
Flower carries messages, knows which clients are connected, and authenticates them. It is used as it
is, but no client runs code that the server sends (:mod:`dpsd.federated.flower.executor`).
"""

from __future__ import annotations

import importlib.util

from dpsd.errors import ConfigError
from dpsd.extras import how_to_install
from dpsd.federated.flower.offline import stay_offline

if importlib.util.find_spec("flwr") is None:
    raise ConfigError(f"a federation needs Flower: {how_to_install('federated')}")
stay_offline()
