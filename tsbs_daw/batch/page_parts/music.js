// Which songs match: tempo within a tolerance that the user sets, also at half and double time, and compatible keys.
// Keys are compared on the Camelot wheel, where neighbours share all notes but one: the same code (8A and 8A), one hour
// on (8A and 7A or 9A; 12A and 1A), or the relative major or minor (8A and 8B). A song without a key, such as a drum
// loop, matches every key. A song without a tempo matches no other.

const CAMELOT = /^(1[0-2]|[1-9])([AB])$/;

/** Parse a Camelot code to [hour 1…12, side 'A' or 'B']. */
function camelot(code) {
  const found = CAMELOT.exec(code ?? '');
  return found ? [Number(found[1]), found[2]] : null;
}

/** Sort key of a musical key: around the wheel, minor before major. */
function wheelPlace(code) {
  const found = camelot(code);
  return found ? found[0] * 2 + (found[1] === 'B' ? 1 : 0) : null;
}

/** 'same', 'relative' or 'neighbour'; 'none' if a song has no key; null if the keys are incompatible. */
function keyRelation(code, other) {
  const [a, b] = [camelot(code), camelot(other)];
  if (!a || !b) return 'none';
  const hours = (a[0] - b[0] + 12) % 12;
  if (hours === 0) return a[1] === b[1] ? 'same' : 'relative';
  return a[1] === b[1] && (hours === 1 || hours === 11) ? 'neighbour' : null;
}

/** {ratio, change}: a change of `change` percent makes the other song run at `ratio` (1, 2 or 1/2) times the tempo. */
function tempoRelation(bpm, other, limit) {
  if (!bpm || !other) return null;
  const apart = (change) => Math.max(change, 1 / change) - 1;
  let best = null;
  for (const ratio of [1, 2, 0.5]) {
    const change = (bpm * ratio) / other;
    if (!best || apart(change) < apart(best.change)) best = { ratio, change };
  }
  if (apart(best.change) > limit / 100 + 1e-9) return null;
  return { ratio: best.ratio, change: 100 * (best.change - 1) };
}

/** How `other` matches `song`; null if it does not. */
function match(song, other, limit) {
  if (song === other || song.state !== 'done' || other.state !== 'done') return null;
  const tempo = tempoRelation(song.tempo?.bpm, other.tempo?.bpm, limit);
  const key = keyRelation(song.key?.camelot, other.key?.camelot);
  return tempo && key ? { song: other, key, ...tempo } : null;
}

/** All songs that match `song`, the closest first. */
function matches(song, songs, limit) {
  const found = songs.map((other) => match(song, other, limit)).filter(Boolean);
  const away = (one) => (one.key === 'none' ? 1000 : 0) + Math.abs(one.change);
  return found.sort((a, b) => away(a) - away(b));
}

const KEY_WORDS = { same: 'same key', relative: 'relative key', neighbour: 'neighbour key', none: 'no key to clash' };

function matchWords(found) {
  const time = { 1: '', 2: 'double time, ', 0.5: 'half time, ' }[found.ratio];
  const change = Math.abs(found.change) < 0.05 ? 'same tempo' : `${signed(found.change)} %`;
  return `${time}${change}, ${KEY_WORDS[found.key]}`;
}

const COLUMNS = [
  { id: 'song', label: 'Song', value: (song) => plain(`${song.title} ${song.artist}`) },
  { id: 'tempo', label: 'Tempo', unit: 'BPM', value: (song) => song.tempo?.bpm },
  { id: 'key', label: 'Key', unit: 'on the Camelot wheel', value: (song) => wheelPlace(song.key?.camelot) },
  { id: 'loudness', label: 'Loudness', unit: 'LUFS, of the song', value: (song) => song.loudness?.lufs },
  { id: 'residual', label: 'Residual', unit: 'dB, the song minus its stems', value: (song) => song.residualDb },
  { id: 'length', label: 'Length', unit: 'minutes', value: (song) => song.durationS },
];

/** Songs sorted by a column, those without a value last; without a column, in the original order. */
function sorted(songs, sort) {
  const column = COLUMNS.find((one) => one.id === sort.column);
  if (!column) return [...songs];
  const compare = (a, b) => (typeof a === 'string' ? a.localeCompare(b) : a - b);
  return songs
    .map((song) => [column.value(song) ?? null, song])
    .sort(([a, one], [b, other]) => {
      if (a === null || b === null) return (a === null) - (b === null) || one.place - other.place;
      return (sort.down ? -compare(a, b) : compare(a, b)) || one.place - other.place;
    })
    .map(([, song]) => song);
}

/** Whether a song matches the filters. */
function wanted(song, filter) {
  if (filter.state && song.state !== filter.state) return false;
  if (filter.words.some((word) => !song.searched.includes(word))) return false;
  const bpm = song.tempo?.bpm;
  if ((filter.slowest !== null || filter.fastest !== null) && !bpm) return false;
  if (filter.slowest !== null && bpm < filter.slowest - 0.05) return false;
  if (filter.fastest !== null && bpm > filter.fastest + 0.05) return false;
  if (filter.vocals && song.vocals !== (filter.vocals === 'with')) return false;
  if (!filter.key) return true;
  return filter.neighbours
    ? song.key !== null && keyRelation(filter.key, song.key.camelot) !== null
    : song.key?.camelot === filter.key;
}
