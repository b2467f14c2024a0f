"""What commands say of themselves, and what holds for all of them, in the words of their help.

It stands here, and not with the commands, because those are loaded only when they are used.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ABOUT", "COMMANDS", "EPILOGUE"]

ABOUT: Final = "Drive Nudgescribe from a shell: customers, messages, reruns, and a sandbox to try them on."

EPILOGUE: Final = """
Settings come from flags, then the environment, then a profile of nudgescribe.toml, then the keyring; secrets are never \
flags. With --json, results are JSON on stdout: lists one document a line, everything else one document. An error is \
then one line of JSON on stderr, {"error": ...}.

Exit codes: 0 done; 1 not done; 2 wrong arguments, settings or credentials; 3 done in part; 4 done, and what was \
compared differs; 130 interrupted (Ctrl-C); 141 nobody reads the output any more; 143 terminated (SIGTERM).
"""

COMMANDS: Final = {
    "demo": (
        "demo:demo",
        """Show the whole product once, on 23,570 real customers, checked row for row.

        It starts a sandbox of its own, needs neither an account nor settings, and leaves nothing behind. It exits with 1
        if a single row comes back other than it went up.
        """,
    ),
    "sandbox": (
        "sandbox:app",
        """Run the sandbox of the service until Ctrl-C.

        It prints lines to `export`, and the ids of its example data. Open its address in a browser to see what your
        program does. It exits with 0 when it is told to stop.
        """,
    ),
    "login": (
        "login:login",
        """Check the credentials, and keep those that were typed in the keyring.

        What the settings lack is asked for on the terminal; secrets are not shown. Then a token is obtained, which the next
        commands use. Without a keyring nothing that was typed is kept, and the output says how to set it.
        """,
    ),
    "logout": (
        "login:logout",
        """Forget the secrets in the keyring, and the token of the account.

        Nothing is sent to the service, where the token stays good until it expires.
        """,
    ),
    "whoami": (
        "login:whoami",
        """Show the settings in use and where they come from, the workspaces of the account, and the age of the token.

        Values of secrets are not shown. It exits with 2 if settings are missing, and with 1 if the service does not
        answer; the settings are shown all the same.
        """,
    ),
    "doctor": (
        "doctor:doctor",
        """Find out how far a request gets, and what to do about it.

        It looks at the settings, the name of the host, the connection, TLS and the clock, logs in, and makes one harmless
        read of each kind. Nothing is changed. A check that cannot be made, because an earlier one failed or because
        there is nothing to read, says so. It exits with 0 if no check failed, else with 1.

        With --contract it looks closer: it logs in, makes some 25 harmless reads one after the other, and tells where the
        answers differ from the contract, and which assumptions of it they confirm. The report holds shapes only: names of
        fields, types, counts, and no value of anybody. It exits with 0 if nothing differs, with 4 if something does, with 3
        if nothing does in what was answered, and some of it was not, and with 1 if the login came to nothing.
        """,
    ),
    "groups": ("groups:app", "List, create, rename and delete the customer groups of a workspace."),
    "fields": ("fields:app", "List, create, change and delete the profile fields of a workspace."),
    "customers": ("customers:app", "Upload, export, count and delete the customers of a group."),
    "campaigns": ("campaigns:app", "List the campaigns of the account."),
    "messages": ("messages:app", "Publish and download the messages of a campaign."),
    "reruns": ("reruns:app", "Run campaigns again for new groups, each exactly once."),
    "completion": ("completion:completion", "Print the script that completes commands in a shell, or install it."),
}
"""Name to where it is in ``commands``, and its help."""
