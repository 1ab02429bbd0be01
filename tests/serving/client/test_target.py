"""Targets that gRPC would silently interpret in another way are rejected; all others are left unchanged."""

import re

import pytest

from serving.client.target import addresses_of, check_target


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("localhost:8500", [("localhost", 8500)]),
        ("my_host-1.example.:1", [("my_host-1.example.", 1)]),
        ("10.0.0.5:65535", [("10.0.0.5", 65535)]),
        ("[::1]:8500", [("::1", 8500)]),
        ("[fe80::1%eth0]:8500", [("fe80::1%eth0", 8500)]),
        ("dns:///digits.default.svc:8500", [("digits.default.svc", 8500)]),
        ("dns:digits:8500", [("digits", 8500)]),
        ("dns://10.0.0.1:53/digits:8500", [("digits", 8500)]),
        ("ipv4:10.0.0.5:8500,10.0.0.6:8501", [("10.0.0.5", 8500), ("10.0.0.6", 8501)]),
        ("ipv4:///10.0.0.5:8500", [("10.0.0.5", 8500)]),
        ("ipv6:[::1]:8500,[::2]:8500", [("::1", 8500), ("::2", 8500)]),
        ("unix:/run/digits.sock", []),
        ("unix:///run/digits.sock", []),
        ("unix-abstract:digits", []),
    ],
)
def test_a_valid_target_is_left_unchanged_and_names_its_addresses(target, addresses):
    assert check_target(target) == target
    assert addresses_of(target) == addresses


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "give HOST:PORT"),
        ("localhost", "has no port; TensorFlow Serving's default is localhost:8500"),
        ("dns:///digits", "has no port"),
        ("localhost:", "is not a gRPC target"),
        ("localhost:grpc", "is not a gRPC target"),
        ("localhost:0", "the port must be from 1 to 65535, not 0"),
        ("localhost:99999", "the port must be from 1 to 65535, not 99999"),
        ("ipv4:10.0.0.5:8500,10.0.0.6:70000", "not 70000"),
        ("http://localhost:8501", "is a URL"),
        ("https://localhost", "is a URL"),
        ("grpc://localhost:8500", "is a URL"),
        ("local host:8500", "'local host' is not a host name"),
        (" localhost:8500", "is not a host name"),
        ("localhost:8500\n", "is not a gRPC target"),
        ("localhost:8500/v1", "is not a gRPC target"),
        ("::1:8500", "is not a gRPC target"),
        ("[localhost]:8500", "does not appear to be an IPv4 or IPv6 address"),
        ("ipv4:localhost:8500", "does not appear to be an IPv4 or IPv6 address"),
        ("ipv4:[::1]:8500", "is an IPv6 address"),
        ("ipv6:10.0.0.5:8500", "is an IPv4 address"),
        ("ipv4:10.0.0.5:8500,", "is not a gRPC target"),
        ("-:8500", "is not a host name"),
        ("unix:", "has no path"),
    ],
)
def test_a_target_that_grpc_would_misinterpret_is_rejected(target, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_target(target)
