"""When which fault happens: rounds over all of them, each round in an order of its own, one at a time."""

from __future__ import annotations

from typing import Final

import trio

from chaos.live.fault import Fault, Record, Site, effect_of
from chaos.recording import Recorder
from raftkube.errors import RaftkubeError

_WARM_UP_S: Final = 4.0
_WHOLE_S: Final = 45.0
_PAUSE_S: Final = (0.5, 1.5)


class Schedule:
    """Faults of one run; `records` are what was done, in order."""

    def __init__(self, site: Site, faults: list[Fault], recorder: Recorder) -> None:
        self._site, self._faults, self._recorder = site, faults, recorder
        self.records: list[Record] = []

    async def run(self, until_s: float) -> None:
        """Until trio's clock says `until_s`; a fault that has begun is finished, and the store is whole."""
        await trio.sleep(min(_WARM_UP_S, max(0.0, (until_s - trio.current_time()) / 2)))
        round_of_faults: list[Fault] = []
        while self._faults and trio.current_time() < until_s:
            if not round_of_faults:
                round_of_faults = self._site.rng.sample(self._faults, len(self._faults))
            await self._one(round_of_faults.pop())
            await self._site.for_a_while(*_PAUSE_S)
        await trio.sleep_until(max(trio.current_time(), until_s))

    async def _one(self, fault: Fault) -> None:
        """Do it, undo it, and wait until the cluster is whole again: faults do not pile up."""
        site = self._site
        targets = fault.targets(site)
        if not targets:
            site.say(f"{fault.name}: no target at this moment")
            return
        record: Record = {
            "type": "fault", "name": fault.name, "target": ",".join(targets),
            "start_ns": self._recorder.now_ns(),
        }  # fmt: skip
        site.say(f"{fault.name}: {record['target']}")
        try:
            record |= await fault.act(site, targets) or {}
        except RaftkubeError as error:
            site.doubts.append(f"{fault.name} of {record['target']}: {error}")
        record["end_ns"] = self._recorder.now_ns()
        await site.until(self._whole, f"the cluster to be whole after {fault.name}", _WHOLE_S)
        record["whole_ns"] = self._recorder.now_ns()
        self._recorder.write(record)
        self.records.append(record)

    async def _whole(self) -> bool:
        if self._site.observers.troubles():
            await trio.lowlevel.checkpoint()
            return False
        rows = (await self._site.cluster.ask("status"))["components"]
        return all(row["phase"] == "running" for row in rows)

    def note_effects(self) -> None:
        """By what was seen, say of each fault what came of it."""
        by_name = {fault.name: fault for fault in self._faults}
        for record in self.records:
            effect = effect_of(by_name[record["name"]], record, self._site.observers.seen)
            record["effect"] = None if effect is None else {k: v for k, v in effect.items() if k != "type"}
            if effect is not None:
                record["detect_ms"] = round((effect["time_ns"] - record["start_ns"]) / 1e6)
