"""The exception roots. Each package derives its own errors from one of these."""


class OffhookError(Exception):
    """Root of every error that offhook raises on purpose. Its text says what to do."""


class SettingsError(OffhookError):
    """A setting is missing or contradicts another."""


class BusError(OffhookError):
    """The bus (Valkey or Redis) refused or could not be reached."""


class EventError(BusError):
    """Bytes from the bus that are not an event of a version we know."""


class StoreError(OffhookError):
    """The database refused or could not be reached."""


class IllegalTransition(OffhookError):
    """An event that the call's state does not allow. The state is unchanged."""


class NotFound(OffhookError):
    """No such call, hint or recording for this tenant."""


class Ambiguous(NotFound):
    """A shortened call id that names more than one call."""
