import base64

import pytest

from paroma.kernel.wire.proxies import Proxy, ProxyInvalid, of, parse


@pytest.mark.parametrize(
    ("host", "environ", "expected"),
    [
        pytest.param("hub.example", {}, None, id="none is set"),
        pytest.param("hub.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1", id="one is set"),
        pytest.param(
            "hub.example", {"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:1"}, "http://q:1", id="lower case"
        ),
        pytest.param("hub.example", {"ALL_PROXY": "http://p:1"}, "http://p:1", id="for everything"),
        pytest.param("hub.example", {"HTTP_PROXY": "http://p:1"}, None, id="for what is not TLS"),
        pytest.param("127.0.0.1", {"HTTPS_PROXY": "http://p:1"}, None, id="this machine"),
        pytest.param(
            "hub.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a, .Example"}, None, id="the domain goes without"
        ),
        pytest.param(
            "hub.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "hub.example:8443"}, None, id="the host does"
        ),
        pytest.param("hub.example", {"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, None, id="all do"),
        pytest.param(
            "hub.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.example,,xample"}, "http://p:1", id="others do"
        ),
        pytest.param("fd00::1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::1"}, None, id="an address does"),
    ],
)
def test_which_proxy_stands_before_a_host(host, environ, expected):
    assert of(host, environ) == expected


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("http://proxy.example:3128", Proxy("proxy.example", 3128, ())),
        ("proxy.example:3128", Proxy("proxy.example", 3128, ())),
        ("http://[::1]:3128/", Proxy("::1", 3128, ())),
        (
            "http://me:a%40b@proxy",
            Proxy("proxy", 80, (("Proxy-Authorization", "Basic " + base64.b64encode(b"me:a@b").decode()),)),
        ),
    ],
)
def test_the_address_of_a_proxy(named, expected):
    assert parse(named) == expected


@pytest.mark.parametrize(
    "named", ["socks5://me:secret@proxy:1", "https://me:secret@proxy", "http://proxy:x", "http://"]
)
def test_what_names_no_proxy_is_refused_without_its_password(named):
    with pytest.raises(ProxyInvalid) as refused:
        parse(named)
    assert "secret" not in refused.value.message
