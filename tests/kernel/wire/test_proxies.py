import pytest

from paroma.kernel.wire.proxies import ProxyInvalid, of

P = "http://p:1"


@pytest.mark.parametrize(
    ("host", "named", "expected"),
    [
        pytest.param("hub.example", {}, None, id="none is set"),
        pytest.param("hub.example", {"https": P}, P, id="one is set"),
        pytest.param("hub.example", {"all": P}, P, id="for everything"),
        pytest.param("hub.example", {"https": P, "all": "http://q:1"}, P, id="the nearer one counts"),
        pytest.param("hub.example", {"http": P}, None, id="for what is not TLS"),
        pytest.param("127.0.0.1", {"https": P}, None, id="this machine"),
        pytest.param("::1", {"all": P}, None, id="this machine, too"),
        pytest.param("hub.example", {"https": P, "no": "a, .Example"}, None, id="the domain goes without"),
        pytest.param("hub.example", {"https": P, "no": "hub.example:8443"}, None, id="the host does at this port"),
        pytest.param("hub.example", {"https": P, "no": "hub.example:443"}, P, id="at another port it does not"),
        pytest.param("hub.example", {"https": P, "no": "a,*"}, None, id="all do"),
        pytest.param("hub.example", {"https": P, "no": "b.example,,xample"}, P, id="others do"),
        pytest.param("fd00::1", {"https": P, "no": "fd00::1"}, None, id="an address does"),
    ],
)
def test_which_proxy_stands_before_a_host(host, named, expected):
    assert of(host, 8443, named) == expected


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("http://[::1]:3128/", "http://[::1]:3128/"),
        ("http://me:a%40b@proxy", "http://me:a%40b@proxy"),
    ],
)
def test_the_address_of_a_proxy(named, expected):
    assert of("hub.example", 443, {"https": named}) == expected


@pytest.mark.parametrize(
    "named", ["socks5://me:secret@proxy:1", "https://me:secret@proxy", "http://proxy:x", "http://", "http://me:secret@"]
)
def test_what_names_no_proxy_is_refused_without_its_password(named):
    with pytest.raises(ProxyInvalid) as refused:
        of("hub.example", 443, {"https": named})
    assert "secret" not in refused.value.message
