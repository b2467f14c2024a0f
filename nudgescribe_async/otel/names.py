"""Names of attributes and metrics.

Those of the semantic conventions are written out: the package that has them as constants is in development, and the API
need not bring it. A test compares them.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

# --- of the semantic conventions -----------------------------------------------------------------------------------

ERROR_TYPE: Final = "error.type"
METHOD: Final = "http.request.method"
RESEND_COUNT: Final = "http.request.resend_count"
STATUS_CODE: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
URL_FULL: Final = "url.full"
URL_SCHEME: Final = "url.scheme"
URL_TEMPLATE: Final = "url.template"

REQUEST_DURATION: Final = "http.client.request.duration"
ACTIVE_REQUESTS: Final = "http.client.active_requests"
REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# --- our own -------------------------------------------------------------------------------------------------------

OPERATION: Final = "nudgescribe.operation"
CUT_OFF: Final = "nudgescribe.call.cut_off"
EFFECT_UNKNOWN: Final = "nudgescribe.call.effect_unknown"
OUTCOME: Final = "nudgescribe.outcome"
PAGES: Final = "nudgescribe.pages"
ITEMS: Final = "nudgescribe.items"
CAMPAIGN_ID: Final = "nudgescribe.campaign.id"
CAMPAIGNS: Final = "nudgescribe.campaigns"
CAMPAIGNS_SUCCEEDED: Final = "nudgescribe.campaigns.succeeded"
ATTEMPT: Final = "nudgescribe.attempt"
ATTEMPT_NUMBER: Final = "nudgescribe.attempt.number"
ATTEMPT_DURATION: Final = "nudgescribe.attempt.duration"
ATTEMPT_WAIT: Final = "nudgescribe.attempt.wait"
REQUEST_ID: Final = "nudgescribe.request.id"
GIVEN_UP: Final = "nudgescribe.given_up"
PAUSED: Final = "nudgescribe.paused"
PAUSE_SECONDS: Final = "nudgescribe.pause.duration"
TOKEN_RENEWED: Final = "nudgescribe.token.renewed"  # noqa: S105 - the name of an event
TOKEN_NOT_RENEWED: Final = "nudgescribe.token.renewal_failed"  # noqa: S105 - the name of an event
TOKEN_SOURCE: Final = "nudgescribe.token.source"  # noqa: S105 - the name of an attribute
PAGES_DRIFTED: Final = "nudgescribe.pages.drifted"
RERUN_STEP: Final = "nudgescribe.rerun.step"
STEP: Final = "nudgescribe.step"

CALL_DURATION: Final = "nudgescribe.client.call.duration"
ACTIVE_CALLS: Final = "nudgescribe.client.active_calls"
RETRIES: Final = "nudgescribe.client.retries"
PAUSE_DURATION: Final = "nudgescribe.client.pause.duration"
RENEWALS: Final = "nudgescribe.client.token.renewals"
CALL_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
PAUSE_BUCKETS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
