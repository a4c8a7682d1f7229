/**
 * Threat levels, and what each of them takes from a profile by default, whatever function, request and rules say.
 * docs/PROFILES.md has the table; each level takes at least what the one below it takes, which is asserted here.
 */
import { limits } from '../core/limits.ts';
import type { ForensicsCapture, ProfileLimits } from './profile.ts';

export const threatLevels = ['low', 'guarded', 'elevated', 'high', 'critical'] as const;

export type ThreatLevel = (typeof threatLevels)[number];

/** The lowest score, 0 to 100, of each level. */
const LOWEST_SCORE: Readonly<Record<ThreatLevel, number>> = {
  low: 0,
  guarded: 20,
  elevated: 40,
  high: 60,
  critical: 80,
};

export function levelOf(score: number): ThreatLevel {
  return threatLevels.findLast((level) => score >= LOWEST_SCORE[level]) ?? 'low';
}

interface Steps {
  readonly execute?: 'image';
  readonly syscalls?: 'strict';
}

type Caps = Partial<Readonly<Record<keyof ProfileLimits, number>>>;

const KiB = 1024;
const MiB = 1024 * KiB;

/** The most that an event of the level gets. */
export const levelCaps: Readonly<Record<ThreatLevel, Caps>> = {
  low: {},
  guarded: { memoryBytes: 2048 * MiB, wallMillis: 300_000, pids: 1024, scratchBytes: 512 * MiB },
  elevated: {
    memoryBytes: 1024 * MiB,
    wallMillis: 60_000,
    pids: 256,
    openFiles: 1024,
    scratchBytes: 128 * MiB,
    outputBytes: 2 * MiB,
    diskReadBytesPerSecond: 128 * MiB,
    diskReadOperationsPerSecond: 10_000,
  },
  high: {
    memoryBytes: 512 * MiB,
    wallMillis: 30_000,
    cpuQuotaMicros: limits.cpuPeriodMicros / 2,
    pids: 64,
    openFiles: 256,
    scratchBytes: 32 * MiB,
    stdoutBytes: 256 * KiB,
    stderrBytes: 256 * KiB,
    outputBytes: 1 * MiB,
    diskReadBytesPerSecond: 64 * MiB,
    diskReadOperationsPerSecond: 4000,
  },
  critical: {
    memoryBytes: 192 * MiB,
    wallMillis: 10_000,
    cpuQuotaMicros: limits.cpuPeriodMicros / 4,
    pids: 32,
    openFiles: 128,
    scratchBytes: 16 * MiB,
    stdoutBytes: 64 * KiB,
    stderrBytes: 64 * KiB,
    outputBytes: 256 * KiB,
    diskReadBytesPerSecond: 16 * MiB,
    diskReadOperationsPerSecond: 1000,
  },
};

/** The kernel policy of an event of the level, at least: fields of `kernel` that are ladders. */
export const levelSteps: Readonly<Record<ThreatLevel, Steps>> = {
  low: {},
  guarded: {},
  elevated: { execute: 'image' },
  high: { execute: 'image', syscalls: 'strict' },
  critical: { execute: 'image', syscalls: 'strict' },
};

/** What an event of the level cannot open, beside what those below it cannot: nothing that a runtime needs. */
const HIDDEN: Readonly<Record<ThreatLevel, readonly string[]>> = {
  low: [],
  guarded: [],
  elevated: ['/boot', '/home', '/media', '/mnt', '/root', '/srv'],
  high: ['/usr/sbin', '/var'],
  critical: [],
};

/** What of the writable paths it cannot write, beside what those below it cannot. */
const READ_ONLY: Readonly<Record<ThreatLevel, readonly string[]>> = {
  low: [],
  guarded: [],
  elevated: [],
  high: [],
  critical: ['/dev/shm'],
};

export function levelPaths(level: ThreatLevel): Readonly<Record<'hidden' | 'readOnly', readonly string[]>> {
  const reached = threatLevels.slice(0, threatLevels.indexOf(level) + 1);
  const paths = (table: typeof HIDDEN): string[] => reached.flatMap((each) => table[each]);
  return { hidden: paths(HIDDEN), readOnly: paths(READ_ONLY) };
}

/** What an event of the level gets at least of what is watched. */
export const levelCapture: Readonly<Record<ThreatLevel, ForensicsCapture>> = {
  low: 'never',
  guarded: 'never',
  elevated: 'on-violation',
  high: 'on-violation',
  critical: 'always',
};

for (const [index, level] of threatLevels.entries()) {
  const below = levelCaps[threatLevels[index - 1] ?? 'low'];
  for (const [field, cap] of Object.entries(below)) {
    const own = levelCaps[level][field as keyof ProfileLimits];
    if (own === undefined || own > cap)
      throw new Error(`profile/levels.ts: ${level} gives more ${field} than a lower level`);
  }
  for (const step of Object.keys(levelSteps[threatLevels[index - 1] ?? 'low'])) {
    if (!(step in levelSteps[level])) throw new Error(`profile/levels.ts: ${level} has no step for ${step}`);
  }
}
