/**
 * How a part of an expression depends on the threat: whether more of it (a higher score or level, further indicators)
 * can only make it larger or true (`up`), only smaller or false (`down`), both (`mixed`), or nothing (`none`).
 *
 * With it a rule set is checked when it is loaded, not when it is too late: a restriction that falls away as the
 * threat grows, or a permission that appears with it, is refused. From that follows the promise that more threat
 * never yields a more permissive profile.
 */
import { threatLevels } from '../../profile/levels.ts';

export type ThreatSense = 'none' | 'up' | 'down' | 'mixed';

export function flip(sense: ThreatSense): ThreatSense {
  if (sense === 'up') return 'down';
  return sense === 'down' ? 'up' : sense;
}

/** Of what grows with each of its parts. */
export function join(...senses: readonly ThreatSense[]): ThreatSense {
  return senses.reduce((a, b) => {
    if (a === 'none') return b;
    return b === 'none' || a === b ? a : 'mixed';
  }, 'none');
}

/** Of what depends on its parts in a way that is not followed further. */
export function opaque(...senses: readonly ThreatSense[]): ThreatSense {
  return senses.every((sense) => sense === 'none') ? 'none' : 'mixed';
}

/** Of `level in [...]`. */
export function senseOfLevels(chosen: ReadonlySet<unknown>): ThreatSense {
  const truth = threatLevels.map((level) => chosen.has(level));
  const changes = truth.filter((is, index) => index > 0 && is !== truth[index - 1]).length;
  if (changes === 0) return 'none';
  if (changes > 1) return 'mixed';
  return truth.at(-1) === true ? 'up' : 'down';
}
