"""Test keys, and signatures made with them.

The private keys stand here in the open, for everybody to read: they protect nothing and prove nothing. They are fixed
so that the same grant has the same signature in every run and in every language's tests.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vastroute import FORMS, InvalidValue, SigningForm, signed_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

TEST_PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDXT3qQPmLYTPJD
TK9eKu7d/azv/3JrQ7zV3e+96hqBg3JC55o6usk/jIgyHwu4WHXqulPYQ6Efq+3e
sPT8WWksx5cXdDFIylzKp0U52AF9DMSjoAFdf3BLlCM6kHSxhI+Ghx+OKXxXwP28
vbdibKsCpaGS46gQ8yCgjYzCpJif4lFWRPVjOfCsfMmNSEUZ0+jdWiBfMEIeFYXy
KRaUdoTqIijyrZLX/KEsamVqzznd/ssaFINA9xCpiTt+vK2Bd7U0m+3Rpw3xv+Op
MRz2hUh4GGc5O+/BSFBBmX5OkNEA+aupKBHDBybD/wW7jKAJBB9f7Wug8wZnZevv
c8xL6WHbAgMBAAECggEASeKmyv/1mIdTLWAP3+84uCoYoeUVhRSiJPv7jL7cqKwM
VkQ260d0zx9xD04TDgghMtMM+a4/iOhNgPlVoJEoI+s8AJrpXLLAw/RBr7ddz2VF
x2adgVG9ndnweuTefppgTEhrPjQjTNPX3uB1oUtsJcTj3M3Nuz9LZ30bnCGylE6K
0LGJQU0FVZAXM9x/oRnQVI+BeUneTs20+G0KrsUVbg0MzJeXGRMoJBtTpA1bMw+E
7jNV+p0tfzD/hIr46du9PVF/hFC+7o/A3CwBFwoWy3XDI4ju2d3+L6fo2sYRfMlh
E4SSvIIoueykSPEFQtKbGLaVeyWXk3hF+paGs9AKOQKBgQD1yV3lw9WDWKiBaS/T
PJ1EEF4FZeL0m0NsC0eSRP0mx1o3CnHq3U/nxCGUhT/8Ivfh48Rx4gp3Hk5DZYwk
J6e69j8JbnwDDr1Sz08ypac28ShGBCTDX555Y++WhPPVm54f9VwQdrjqnLNGb2tN
onXXOQs2lngh/W86FnIugxOrowKBgQDgQemYJzwlflcZVB5TAlWYXEVzsLa7Wxrd
TW/N4aoBYRS21rRPHvSVTv9NGsxcGgK9OyivnnxQ0xGvnEQX2hqR3Z73l7/T/QHD
ozpmFW8ulmsZoOkLcOybMat4cRfu+RJgdBWDoLlKTrMwTsjeBYz05eU//STYTTYw
r3JUEcfUaQKBgQDYCfBr1i+lbNdoMJHmBYBiZFSQQBc2VAb2QA/f5J3zaQTGHns1
KuRiXoX5qwor0Hy74903EK2MOGooWWjOGsEW1/1eh+ufMGR/FlORvAN3io+Qw3Gg
/Topjwr37dL5rfhWNO+AVSqCpcv6nFLgAW29CJnvmGDt13rdvv8MHRC8KwKBgAgc
Ghh4gsJQWVH/KsGRugqye4h9gX4xAz2xiTOGz6ERI7Cg/xBFbE7h9nWRXIaQIj05
oHUJZDGAEImrOwMpzgAsZY1KnZNK+P9cLcZ3S/gBVIouuX7CbKwIFc1bOaRYuYNn
b0e9TjYTtoMutjDhPoG0tp+jxetUj3sfPSExK2rRAoGBAKLRepPqHUndWkz7Mz6s
oRe3fopMpgdiaGNfnvSWa50si/3qu97XdpENxNYNwRg1/c/+12XYqshKanttSLMG
ybmH7ZkXis6HxxXWX4FSTnXquCqjVOVWr7nQ/nPfMNr1nvHBAD19jmV7dYZ0AlAk
L1gw4PuNrc9szabs5d4Bcnj7
-----END PRIVATE KEY-----
"""
"""The TEST key that simulated engines sign with: RSA, 2048 bits, PKCS#8. Never use it for anything real."""

TEST_PUBLIC_KEY = """\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1096kD5i2EzyQ0yvXiru
3f2s7/9ya0O81d3vveoagYNyQueaOrrJP4yIMh8LuFh16rpT2EOhH6vt3rD0/Flp
LMeXF3QxSMpcyqdFOdgBfQzEo6ABXX9wS5QjOpB0sYSPhocfjil8V8D9vL23Ymyr
AqWhkuOoEPMgoI2MwqSYn+JRVkT1YznwrHzJjUhFGdPo3VogXzBCHhWF8ikWlHaE
6iIo8q2S1/yhLGplas853f7LGhSDQPcQqYk7frytgXe1NJvt0acN8b/jqTEc9oVI
eBhnOTvvwUhQQZl+TpDRAPmrqSgRwwcmw/8Fu4ygCQQfX+1roPMGZ2Xr73PMS+lh
2wIDAQAB
-----END PUBLIC KEY-----
"""
"""Its public half, as ``GET /pubkey/`` answers (wire facts, section 4, "Key")."""

OTHER_TEST_PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDha4Bj44MfFMTu
jiTDgvV77AkfWI33BqabqP5AmhF8jBph9O69rzf9o8rGp/VnnCB44D73YAVOZelg
F96uNai9TAFmjhTwxS/UB876pqTiAEle3UUotf5ycC5iwF3dTvDQxKIjaFlNw3SA
N7MDz4UNOnkUi6oTOCe44P5ZsCfboSyR5o417nhYRb+tB+WkqEDY3uuyuiYPrLPc
itr+y+2XXBigiVsMBCiIbfP4RYOkP6kikjV4vLR6iUEl65EJLz6nm3P+cuwv4fEU
jnWKfbBam69A1Xuhs6aNRK6ZNuFESYi58YwNynjO9PVhSKhI49XS83qj4/nXTS03
YGHY+sG9AgMBAAECggEAFVTYtLsoIpYSz7dUS8sWA2jR8S0uXAC9XfAXRVI/Et/o
NDpbKEiPPhmUnAlzW99mpEGmO78SqXlT5RPFLwulYOpzHHsYCLPEQ6aMg+QmqLtZ
thguzfww7K/od9BX4ZQxjjP5WuvqPYVgPiznLBZkcxzELflMeh6fhauG7kJQ90PD
Di/c4j2aDkg6/E18FkznFWchDiwrVBKJP0VrbhHOKj5d+9osYrFLMKyKcetIzt8e
lbsJ/wbxMgBxAB7XTKQyee4/3uiTIuhsq+TlAn9Vp2oQO/cMG9fd6KFGH+OSJ8Ef
+b9b++5jdNRL35v9cfJYMFV8/lyqxnAahVq2uAEA2QKBgQDyPUTVsA6yB55qh7Eq
Q5WkqUgnGPIcCxfArww3WtjFGip8QgqFzRdi+dEEgZfN4gcs07jkKsXDCQKgvf5q
7ovp5ROD2ez9kULcoEK0h3lri4UTEjbppJS+7+51dckyG7plWe4SUW7svGIRXcmu
kEEAZSQqeU9FYi/hx/s2OJKFyQKBgQDuOaOLYWUKezM8ULv2TZRKtbcXRPm1KNxu
bvdRxmMd62/+gAciuz0QRdbqrUqErqWwqnY4AiC/zuSBJ8vR0vUujRtqECI+BRU3
V51llYAeg0AcEpRfE3a8QGFJIzF/gmlGsbigs3+On3KNAIo2Gq59RV67kb1uVLx/
dVRjOvSmVQKBgQDexmf6mUo6gfU3hYjyFGuXnjMD+dYW4kC67IEwmzTFt7Wgxt+E
g8PhO1v1Z/Ui2567pA7ij0+GeU/YYkKLNsynkwuqc42W+LNj0WLnQbvxosMEcfjc
UIaXPnKvxV393jBCqzzdzdRUlT8fN4CWMIYHBf0Hrr6vUYg1fUPTbp2ZuQKBgHaK
QeIiVafwhB84QT+ffPHsGC5BCUxnB8EAAJs1b668r97hECvtJcaKKhZeop0BVrth
JzBZhrhLGBNYnShMo+pFFuYhHxjjaJpAQ7b/vF/yiZ0udZwV0Fh+ZKqDE6dSWlZu
KuP0Tb3Hg7W8Fgo0Hq2BLlGBhNR4389Ar/wsov59AoGBAMzkU+Ulxw/DIOHeMeHc
iYbftslSWp/HPpwBw5bkX7nIPl9TkNLvVCUGR/R+qB3PJeTIv211BKFkZ24JMofN
NETJrkelYXcc9gl09eieIQC6MtZmeWyuijYOj65QD16SuiBgRfSOJlb773Mklo4Z
w6tvhMiH40lMVaXVcnHeg6HD
-----END PRIVATE KEY-----
"""
"""A second TEST key, for signatures that do not verify. Never use it for anything real."""

OTHER_TEST_PUBLIC_KEY = """\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA4WuAY+ODHxTE7o4kw4L1
e+wJH1iN9wamm6j+QJoRfIwaYfTuva83/aPKxqf1Z5wgeOA+92AFTmXpYBferjWo
vUwBZo4U8MUv1AfO+qak4gBJXt1FKLX+cnAuYsBd3U7w0MSiI2hZTcN0gDezA8+F
DTp5FIuqEzgnuOD+WbAn26EskeaONe54WEW/rQflpKhA2N7rsromD6yz3Ira/svt
l1wYoIlbDAQoiG3z+EWDpD+pIpI1eLy0eolBJeuRCS8+p5tz/nLsL+HxFI51in2w
WpuvQNV7obOmjUSumTbhREmIufGMDcp4zvT1YUioSOPV0vN6o+P5100tN2Bh2PrB
vQIDAQAB
-----END PUBLIC KEY-----
"""
"""The public half of the second key."""


def sign(fields: Mapping[str, Any], form: SigningForm = FORMS[0], *, key: str = TEST_PRIVATE_KEY) -> str:
    """The signature of a grant's parsed `fields` in `form`, as base64; `key` is a private key's PEM.

    The same arguments give the same text: RSASSA-PKCS1-v1_5 has no randomness. Raises `InvalidValue` if `fields` lack
    something that the form signs.
    """
    text = signed_text(form, fields)
    if text is None:
        raise InvalidValue(f"the form {form.name!r} signs {', '.join(form.covers)}, and not all of them are there")
    return _signature(key, text)


def public_half(key: str) -> str:
    """The PEM of the public key that belongs to the private one whose PEM is `key`."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _load(key).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


@lru_cache(maxsize=1024)
def _signature(key: str, text: bytes) -> str:
    # Remembered because the form in use signs the worker's address alone: most grants repeat a signature.
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    return b64encode(_load(key).sign(text, PKCS1v15(), SHA256())).decode("ascii")


@lru_cache(maxsize=16)
def _load(key: str) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(key.encode("utf-8"), None)
    except (ValueError, TypeError):
        raise InvalidValue("this is not the PEM of a private key without a password") from None
    if not isinstance(loaded, RSAPrivateKey):
        raise InvalidValue(f"an engine signs with an RSA key, and this is {type(loaded).__name__}")
    return loaded
