"""What secrets look like: the catalogue behind :func:`.masking.mask_text`.

The shapes are those that services give their own tokens, as the rule lists of public scanners name them (gitleaks' default
rules, GitHub's list of secret scanning patterns). Every repetition is bounded, so that the time stays linear in the text.
"""

from __future__ import annotations

import re

MASK = "***"
_BEFORE, _AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"

#: name: shape of the whole token.
TOKENS = {
    "GitHub": r"gh[pousr]_[A-Za-z0-9]{8,512}|github_pat_\w{8,512}",
    "GitLab": r"gl(?:pat|ptt|dt|rt|cbt|agent|soat|ffct|imt|ft)-[\w\-]{16,300}",
    "Bitbucket and Atlassian": r"ATBB[A-Za-z0-9]{24,64}|ATATT3[A-Za-z0-9_\-=]{20,512}",
    "Slack": r"xox[abeoprs]-[A-Za-z0-9\-]{10,256}|xapp-\d-[A-Za-z0-9\-]{10,256}",
    "OpenAI and Anthropic": r"sk-[A-Za-z0-9_\-]{20,256}",
    "Stripe": r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,256}",
    "Google": r"AIza[\w\-]{35}|ya29\.[\w\-]{20,1024}|GOCSPX-[\w\-]{20,64}",
    "AWS": r"(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}",
    "package index PyPI": r"pypi-[\w\-]{16,512}",
    "package index npm": r"npm_[A-Za-z0-9]{30,64}",
    "package index RubyGems": r"rubygems_[0-9a-f]{32,64}",
    "package index crates": r"cio[A-Za-z0-9]{32}",
    "package index NuGet": r"oy2[a-z0-9]{43}",
    "Docker Hub": r"dckr_(?:pat|oat)_[\w\-]{20,64}",
    "Hugging Face": r"hf_[A-Za-z0-9]{30,64}",
    "SendGrid": r"SG\.[\w\-]{16,32}\.[\w\-]{16,64}",
    "Mailgun": r"key-[0-9a-f]{32}",
    "Twilio": r"SK[0-9a-f]{32}",
    "Databricks": r"dapi[0-9a-f]{32}(?:-\d)?",
    "DigitalOcean": r"do[opr]_v1_[0-9a-f]{64}",
    "Grafana": r"gl(?:sa|c)_[A-Za-z0-9_+/=]{20,300}",
    "HashiCorp Vault": r"hv[sb]\.[\w\-]{20,300}",
    "Notion": r"(?:secret|ntn)_[A-Za-z0-9]{40,64}",
    "Tailscale": r"tskey-[a-z]{2,12}-[A-Za-z0-9\-]{10,128}",
    "age": r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    "Telegram": r"\d{8,10}:AA[\w\-]{32,34}",
}
#: name: what stays, as group 1, and the secret behind it: whoever knows such an address may write to the channel.
WEBHOOKS = {
    "Slack": r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/]{8,300}",
    "Discord": r"(discord(?:app)?\.com/api/webhooks/)\d{5,32}/[\w\-]{20,128}",
    "Microsoft Teams": r"((?:webhook|outlook)\.office\.com/webhook(?:b2)?/)[\w@\-/]{20,400}",
    "Google Chat": r"(chat\.googleapis\.com/v1/spaces/)[\w\-]{4,64}/messages\?[^\s\"'<>]{10,600}",
    "Mattermost": r"(/hooks/)[a-z0-9]{26}(?![A-Za-z0-9])",
    "Zapier": r"(hooks\.zapier\.com/hooks/catch/)[\w/]{4,128}",
    "IFTTT": r"(maker\.ifttt\.com/trigger/[\w\-]{1,64}/(?:json/)?with/key/)[\w\-]{8,128}",
    "Telegram": r"(api\.telegram\.org/bot)\d{6,12}:[\w\-]{20,64}",
}
#: Parameters of a URL that sign it: cloud storage (Azure, AWS, Google, Alibaba) and single-use links.
URL_PARAMETERS = (
    r"sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-goog-credential|awsaccesskeyid"
    r"|ossaccesskeyid|googleaccessid|key-pair-id|policy|code|key"
)
#: Programs whose option ``-p`` is no password: plugins, ports, parents, profiles.
_P_IS_OTHER = re.compile(
    r"(?i)\b(?:pytest|py\.test|bonsai|mkdir|ssh|scp|docker|podman|psql|cp|rsync|ps|kill|nmap|iptables|pip)(?:\.exe)?\b[^|;&]*$"
)

_PRIVATE_KEY = r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[^-]|-(?!----)){0,20000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
_AUTHORIZATION = (
    r"""(?i)(\b(?:proxy-)?authorization\b["']?\s{0,8}[:=]\s{0,8}["']?)"""
    r"""(?:(?:bearer|token|basic|digest)\s{1,8})?[^\s"',;]{1,4096}"""
)
#: An option and what stands behind it, in a shell line or in a list as Python prints it.
OPTION = re.compile(
    r"""(?P<option>(?<![\w\-])-{1,2}[A-Za-z][\w\-]{0,60})(?P<join>\\?["']?,?\s{1,8}\\?["']?)"""
    r"""(?P<value>\{[\w.:\- ]{1,80}\}|[^\s"',\\\])}]{1,2048})"""
)


#: ``scheme://user:password@``; the password is group 3.
URL_CREDENTIALS = re.compile(
    r"""(?<![\w+.\-])([A-Za-z][A-Za-z0-9+.\-]{0,30}://)([^\s/:@?#"'<>\\]{0,256}):([^\s/"'<>\\]{1,1024})@"""
)
#: ``scheme://token@``: a name without password that is as long as a token, group 2.
URL_TOKEN = re.compile(r"""([A-Za-z][A-Za-z0-9+.\-]{0,30}://)([\w\-.~%]{20,512})@""")
#: Patterns and their replacements.
PATTERNS = [
    (re.compile(_PRIVATE_KEY), "PRIVATE KEY " + MASK),
    (URL_CREDENTIALS, r"\1\2:" + MASK + "@"),
    *((re.compile(shape), r"\1" + MASK) for shape in WEBHOOKS.values()),
    (URL_TOKEN, r"\1" + MASK + "@"),
    (re.compile(rf"""(?i)([?&](?:{URL_PARAMETERS})=)[^&\s"'<>\\]{{6,4096}}"""), r"\1" + MASK),
    (re.compile(f"{_BEFORE}(?:{'|'.join(TOKENS.values())}){_AFTER}"), MASK),
    (re.compile(r"(?<![\w\-])eyJ[\w\-]{4,4096}\.[\w\-]{4,8192}(?:\.[\w\-]{0,4096})?"), MASK),
    (re.compile(_AUTHORIZATION), r"\1" + MASK),
    (re.compile(r"(?i)\b(bearer\s{1,8})[\w.~+/\-]{12,4096}=*"), r"\1" + MASK),
]


def _any_of(signs: str) -> re.Pattern[str]:
    """Compile shapes with spaces between them, each of which begins with a character that stands for itself.

    Grouped by that character: the search then skips to one of them, which makes it ten times as fast as in any order.
    """
    groups: dict[str, list[str]] = {}
    for sign in signs.split():
        first = sign[: 2 if sign.startswith("\\") else 1]
        groups.setdefault(first, []).append(sign.removeprefix(first))
    return re.compile("|".join(f"{first}(?:{'|'.join(rests)})" for first, rests in groups.items()))


_STEMS = r"token passw passphrase pwd secret key(?<=[a-z_\-\x20]key) apikey credential auth cookie jwt bearer _pass _pat -pass"
#: No text without one of these stems has a secret-looking key or option; for text in ``casefold``.
STEMS = _any_of(_STEMS)
#: No text without one of these holds anything that the patterns mask, and most texts end here; for text in ``casefold``.
SIGNS = _any_of(
    _STEMS + r" :// gh[pousr]_ github_pat gl[a-z]{2,5}- atbb atatt3 xox xapp- sk- rk_ sk_ aiza ya29 gocspx akia asia aroa aida"
    r" pypi- npm_ rubygems_ cio oy2 dckr_ hf_ sg\. key- sk[0-9a-f]{32} dapi do[opr]_v1 glsa_ glc_ hv[sb]\. ntn_ tskey :aa eyj"
    r" hooks webhook private\x20key \? & -p(?<![\w-]-p)\W"
)


def is_password_option(option: str, value: str, before: str) -> bool:
    """Tell whether ``-p VALUE`` gives a password, for all that can be seen.

    Not where a known program has another meaning for it, and not for ``NAME=VALUE``, numbers and paths.
    """
    if option not in ("-p", "-pw", "-P"):
        return False
    if "=" in value or value.isdigit() or value.startswith((".", "-", "~", "no:")) or "/" in value or ":" in value:
        return False
    return _P_IS_OTHER.search(before) is None
