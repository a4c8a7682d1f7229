/**
 * Versions of QEMU that a hostile guest is known to break out of through a device that every clone has. It is a short
 * list on purpose: flaws of other devices do not matter here, because no clone has them (vmm/machine.ts).
 *
 * Distributions mend a version without renaming it. Their package's own version says more, so where one is known the
 * finding is left to a person; QEMU as its project released it is judged by its number.
 */

export interface KnownFlaw {
  readonly id: string;
  /** What a guest can do, and through what. */
  readonly what: string;
  /** First release of each maintained series that has the fix, ascending; later series have it from the beginning. */
  readonly fixed: readonly string[];
}

const flaws: readonly KnownFlaw[] = [
  {
    id: 'CVE-2024-3446',
    what: 'a guest may run code in the VMM through virtio-serial',
    fixed: ['7.2.11', '8.2.3', '9.0.0'],
  },
];

/** `version` as in `QEMU 7.2.22`. Flaws that this release has; a version that cannot be read has all of them. */
export function knownFlaws(version: string): readonly KnownFlaw[] {
  const found = /(\d+)\.(\d+)\.(\d+)/.exec(version);
  if (found === null) return flaws;
  const numbers = found.slice(1).map(Number);
  return flaws.filter(({ fixed }) => !isFixed(numbers, fixed));
}

function isFixed(version: readonly number[], fixed: readonly string[]): boolean {
  const releases = fixed.map((release) => release.split('.').map(Number));
  const ownSeries = releases.find((release) => release[0] === version[0] && release[1] === version[1]);
  const from = ownSeries ?? releases.at(-1) ?? [];
  return compare(version, from) >= 0;
}

function compare(one: readonly number[], other: readonly number[]): number {
  const index = one.findIndex((number, each) => number !== other[each]);
  return index === -1 ? 0 : (one[index] ?? 0) - (other[index] ?? 0);
}
