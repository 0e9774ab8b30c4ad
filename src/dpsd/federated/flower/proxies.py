"""Configurations of reverse proxies that let clients reach Flower's server, and nothing else of it.

Flower's server has one port for three things: clients (``/v1/fleet/``), those who control it
(``/v1/control/``, without a login) and those who run its app (``/v1/runtime/``). Whoever reaches
the second can register clients and start runs, so the server listens on the loopback interface, and
a proxy in front passes on the first alone.
"""

from __future__ import annotations

from pathlib import Path

_NGINX = """\
# Clients reach {host}:{outside}; nothing but /v1/fleet/ is passed on to Flower's server.
server {{
    listen {outside} ssl;
    server_name {host};
    ssl_certificate {certificate};
    ssl_certificate_key {key};

    location /v1/fleet/ {{
        # With a path, nginx passes on the path that it has understood, not what it was sent.
        proxy_pass https://127.0.0.1:{inside}/v1/fleet/;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {authority};
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
        client_max_body_size 160m;
        proxy_read_timeout 120s;
    }}
    location / {{
        return 404;
    }}
}}
"""

_CADDY = """\
# Clients reach {host}:{outside}; nothing but /v1/fleet/ is passed on to Flower's server.
https://{host}:{outside} {{
    tls {certificate} {key}
    handle /v1/fleet/* {{
        reverse_proxy https://127.0.0.1:{inside} {{
            transport http {{
                # From Caddy 2.8 on also: tls_trust_pool file {authority}
                tls_trusted_ca_certs {authority}
                tls_server_name localhost
            }}
        }}
    }}
    handle {{
        respond 404
    }}
}}
"""

#: The configurations by the proxy's name.
_TEMPLATES = {"nginx": _NGINX, "caddy": _CADDY}

#: The proxies that there are configurations of.
PROXIES = tuple(_TEMPLATES)


def proxy_configuration(
    proxy: str,
    *,
    host: str,
    outside: int,
    inside: int,
    authority: Path,
    certificate: Path,
    key: Path,
) -> str:
    """Return the configuration of a reverse proxy.

    Args:
        proxy: one of :data:`PROXIES`.
        host: the name under which clients reach the proxy.
        outside: the port that clients reach.
        inside: the port of Flower's server on the loopback interface.
        authority: the certificate of the authority.
        certificate: the server's certificate, which the proxy shows.
        key: its private key.

    >>> text = proxy_configuration(
    ...     "caddy", host="hub.example", outside=443, inside=9093, authority=Path("/f/ca.crt"),
    ...     certificate=Path("/f/server.crt"), key=Path("/f/server.key"))
    >>> "handle /v1/fleet/*" in text
    True
    """
    return _TEMPLATES[proxy].format(
        host=host,
        outside=outside,
        inside=inside,
        authority=authority.absolute(),
        certificate=certificate.absolute(),
        key=key.absolute(),
    )
