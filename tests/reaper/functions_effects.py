"""REAPER's functions on effects of tracks and takes, and on where tracks send to."""

from __future__ import annotations

from reaper.signatures import Misuse


class EffectFunctions:
    """Mixed into the stand-in, which has `projects` and `_changing(name, handle)`."""

    # Of tracks

    def TrackFX_GetCount(self, track):
        return len(track.effects)

    def TrackFX_CopyToTrack(self, source, index, target, at, is_move):
        self._changing("TrackFX_CopyToTrack", target)
        effect = source.effects.pop(index) if is_move else source.effects[index]
        target.effects.insert(at, effect)

    def _sends(self, track, category):
        """API text: "category is <0 for receives, 0=sends, >0 for hardware outputs"."""
        if category < 0:
            raise Misuse("this stand-in knows no receives")
        return track.outputs if category else track.sends

    def GetTrackNumSends(self, track, category):
        return len(self._sends(track, category))

    def GetTrackSendInfo_Value(self, track, category, index, name):
        send = self._sends(track, category)[index]
        if name == "P_DESTTRACK":
            return next(other for project in self.projects for other in project.tracks if other.guid == send["to"])
        return send.get(name, 0.0)

    def SetTrackSendInfo_Value(self, track, category, index, name, value):
        self._changing("SetTrackSendInfo_Value", track)
        self._sends(track, category)[index][name] = value
        return True

    def CreateTrackSend(self, track, target):
        """API text: a hardware output where there is no target."""
        self._changing("CreateTrackSend", track)
        sends = track.sends if target else track.outputs
        sends.append({"to": target.guid, "D_VOL": 1.0} if target else {"D_VOL": 1.0})
        return len(sends) - 1

    # Of takes

    def TakeFX_GetCount(self, take):
        return take.effects

    def TakeFX_AddByName(self, take, name, instantiate):
        if name != "JS: utility/volume":
            return -1
        self._changing("TakeFX_AddByName", take)
        take.effects += 1
        return take.effects - 1

    def TakeFX_SetParam(self, take, index, parameter, value):
        """Of that effect, the first one is its gain in dB."""
        self._changing("TakeFX_SetParam", take)
        take.effect_level = 10 ** (value / 20)
        return True
