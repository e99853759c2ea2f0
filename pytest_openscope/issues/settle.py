"""Races without a coordinator: after a creation, look again until the list can be trusted; the lowest number wins.

Lists lag by seconds, at times by a minute, so others may have opened an issue for the same defect meanwhile. Who sees an open
one with a lower number closes the own one, nobody else's. The lowest number sees no lower one, so it stays.
"""

from __future__ import annotations

from typing import Any

from .client import RefusedError
from .dealings import Dealings
from .find import set_anchor


class Settler(Dealings):
    """Settles reports whose issue this rig has opened."""

    def settle(self, report: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """Look for lower numbers; return the canonical issue's answer if the own one had to go."""
        self.begin(report)
        state = report["state"]
        number = int(state["number"])
        entry = self.remembered["fingerprints"].setdefault(
            report["fingerprint"], {"number": number, "count": 1, "first_at": report["occurred_at"], "comment_day": ""}
        )
        listed = self.finder.open(report["fingerprint"])
        lower = self._lower(state, listed, number)
        if lower is not None:
            answer = self._give_way(report, entry, number, lower)
            self.ledger.save()
            return answer, True
        if self.settings.labels and not self.remembered.get("anchor") and not self.remembered.get("labels_dropped"):
            set_anchor(self.api, self.settings.labels[0], number, self.remembered)
        self.ledger.save()
        seen = any(issue["number"] == number for issue in listed)
        state["checks"] = int(state.get("checks") or 0) + 1
        waits = self.timing.settle_s
        if state["checks"] < len(waits):
            state["next_try"] = max(float(state["created_at"]) + waits[state["checks"]], self.now() + 1.0)
            return None, False
        if seen or state["checks"] >= len(waits) + self.timing.resettle_times:
            return None, True
        own = self.api.issue(number)
        if own is None or own["state"] != "open":
            return None, True
        state["next_try"] = self.now() + self.timing.resettle_s
        return None, False

    def _lower(self, state: dict[str, Any], listed: list[dict[str, Any]], number: int) -> dict[str, Any] | None:
        """Return the lowest issue that is older than the own one and still open, asked for itself, since lists lag."""
        numbers = [int(issue["number"]) for issue in listed if int(issue["number"]) < number]
        if state.get("duplicate_of"):
            numbers.insert(0, int(state["duplicate_of"]))
        for candidate in numbers:
            issue = self.api.issue(candidate)
            if issue is not None and issue["state"] == "open" and not issue.get("locked"):
                return issue
        return None

    def _give_way(
        self, report: dict[str, Any], entry: dict[str, Any], number: int, lower: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Close the own issue as a duplicate of a lower one, and add the rig's count there."""
        state = report["state"]
        state["duplicate_of"] = lower["number"]
        own = self.api.issue(number)
        if own is not None and own["state"] == "open":
            self.comment(report, number, f"Duplicate of #{lower['number']}\n")
            self._close(number, lower)
        entry.update(number=lower["number"], url=lower["html_url"])
        if not state.get("told"):
            entry["comment_day"] = ""
            told = self.count_in_comment(report, entry, lower, f"Seen (as #{number}, too)")
            state["told"] = True
            return self.answer(report, "commented" if told else "known", lower, f"#{number} was a duplicate")
        return self.answer(report, "known", lower, f"#{number} was a duplicate")

    def _close(self, number: int, lower: dict[str, Any]) -> None:
        """Close as duplicate; PyGithub's ``Issue.edit`` cannot name the other issue, which goes by its id, not its number."""
        content = {"state": "closed", "state_reason": "duplicate", "duplicate_issue_id": lower.get("id")}
        try:
            self.api.send("PATCH", f"/issues/{number}", content)
        except RefusedError:
            del content["duplicate_issue_id"]
            self.api.send("PATCH", f"/issues/{number}", content)
