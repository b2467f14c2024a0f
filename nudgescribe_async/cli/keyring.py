"""Secrets in the keyring of the system, where there is one.

A secret is kept for the address of a service and the e-mail address of a user: a profile that is pointed at another
address finds none. A keyring that is missing, locked or broken is one that has nothing; ``login`` says so.
"""

from __future__ import annotations

from nudgescribe_async.address import normal_address

__all__ = ["forget", "keep", "look_up", "usable"]


def usable() -> bool:
    """Whether there is a keyring that can keep something."""
    try:
        import keyring  # noqa: PLC0415 - an extra, and slow to load
        from keyring.backends.fail import Keyring as NoKeyring  # noqa: PLC0415
        from keyring.backends.null import Keyring as Forgetful  # noqa: PLC0415
    except ImportError:
        return False
    try:
        return not isinstance(keyring.get_keyring(), NoKeyring | Forgetful)
    except Exception:  # noqa: BLE001 - backends raise what they like
        return False


def look_up(base_url: str, email: str, name: str) -> str | None:
    """The secret that is kept, if any."""
    if not usable():
        return None
    import keyring  # noqa: PLC0415

    try:
        return keyring.get_password(_service(base_url), f"{email} {name}")
    except Exception:  # noqa: BLE001 - backends raise what they like
        return None


def keep(base_url: str, email: str, name: str, secret: str) -> bool:
    """Keep a secret; whether that worked."""
    if not usable():
        return False
    import keyring  # noqa: PLC0415

    try:
        keyring.set_password(_service(base_url), f"{email} {name}", secret)
    except Exception:  # noqa: BLE001 - backends raise what they like
        return False
    return True


def forget(base_url: str, email: str, name: str) -> bool:
    """Forget a secret; whether there was one."""
    if look_up(base_url, email, name) is None:
        return False
    import keyring  # noqa: PLC0415

    try:
        keyring.delete_password(_service(base_url), f"{email} {name}")
    except Exception:  # noqa: BLE001 - backends raise what they like
        return False
    return True


def _service(base_url: str) -> str:
    return f"nudgescribe {normal_address(base_url)}"
