/** Names for whoever has mistyped one. */

/** ` (did you mean …?)`, or nothing. */
export function suggest(wrong: string, known: readonly string[]): string {
  const near = known
    .map((name) => ({ name, distance: distance(wrong.toLowerCase(), name.toLowerCase()) }))
    .filter((each) => each.distance <= Math.max(wrong.length < 4 ? 1 : 2, Math.floor(wrong.length / 3)))
    .sort((a, b) => a.distance - b.distance)[0];
  if (near !== undefined) return ` (did you mean ${near.name}?)`;
  return known.length === 0 || known.length > 20 ? '' : `; there is ${known.join(', ')}`;
}

/** Levenshtein; what is long is not a typing mistake. */
function distance(a: string, b: string): number {
  if (a.length > 40 || b.length > 40) return 40;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, swap));
    }
    row = next;
  }
  return row[b.length] ?? 40;
}
