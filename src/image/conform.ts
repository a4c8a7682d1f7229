/**
 * What an image must do to serve events, and what the probe inside its clones found (guest/probe). Pure: the report
 * comes out of a guest, so it is parsed within bounds, and nothing in it is believed that the host can compare itself.
 */
import { isObject, printableLine } from '../core/json.ts';

export interface Check {
  /** As in `clone: unique`. */
  readonly name: string;
  readonly result: 'pass' | 'fail' | 'skip';
  /** What was found, one line. */
  readonly detail: string;
  /** What to do about it; empty unless it failed. */
  readonly remedy: string;
}

interface Reached {
  readonly reached: number;
  /** Why it went no further; empty when nothing stopped it. */
  readonly error: string;
}

/** What one clone reports. */
export interface ProbeReport {
  readonly identity: { readonly [name in IdentityName]: string };
  readonly clockNanos: bigint;
  readonly limits: { readonly [name in LimitName]: Reached };
  readonly checks: readonly { readonly name: string; readonly ok: boolean; readonly detail: string }[];
}

const IDENTITY = ['random', 'machineId', 'bootId', 'hostname'] as const;
const LIMITS = ['files', 'processes', 'scratch'] as const;
type IdentityName = (typeof IDENTITY)[number];
type LimitName = (typeof LIMITS)[number];

const CHECKS_MAX = 128;
const TEXT_UNITS = 300;

/** What the probe tries in every clone: one that it does not report has failed. */
const EXPECTED: readonly string[] = [
  'event', 'user', 'no root', 'no mount', 'no chroot', 'no device', 'no disk', 'no privileges',
  'write /tmp', 'write /dev/shm', 'no write /', 'no write /etc', 'no write /usr', 'no write /function', 'no write /dev',
  'no write /proc/sys/kernel', 'devices', 'no network',
];

/** Undefined when it is no report: the image's clone is not what it should be. */
export function parseReport(value: unknown): ProbeReport | undefined {
  if (!isObject(value) || !Array.isArray(value.checks) || value.checks.length > CHECKS_MAX) return undefined;
  const text = (item: unknown): string => printableLine(typeof item === 'string' ? item : '', TEXT_UNITS);
  const reached = (item: unknown): Reached => {
    const { reached: number, error } = isObject(item) ? item : {};
    return { reached: typeof number === 'number' && number >= 0 ? number : 0, error: text(error) };
  };
  const clock = text(value.clockNanos);
  return {
    identity: {
      random: text(value.random), machineId: text(value.machineId), bootId: text(value.bootId),
      hostname: text(value.hostname),
    },
    clockNanos: /^[0-9]{1,20}$/.test(clock) ? BigInt(clock) : 0n,
    limits: { files: reached(value.files), processes: reached(value.processes), scratch: reached(value.scratch) },
    checks: value.checks.filter(isObject).map(({ name, ok, detail }) => {
      return { name: text(name), ok: ok === true, detail: text(detail) };
    }),
  };
}

/** One line for each thing that the probe tried, those that it did not try included. */
export function judgeReport({ checks }: ProbeReport, programs: readonly string[]): Check[] {
  const wanted = [...EXPECTED, ...programs.map((path) => `program ${path}`)];
  return wanted.map((name) => {
    const found = checks.filter((check) => check.name === printableLine(name, TEXT_UNITS));
    const [first] = found;
    if (first === undefined || found.length > 1) return fail(`guest: ${name}`, 'not reported, or twice', BOOT);
    return first.ok ? pass(`guest: ${name}`, first.detail) : fail(`guest: ${name}`, first.detail, remedyOf(name));
  });
}

function remedyOf(name: string): string {
  if (name.startsWith('program ')) {
    return 'Name a program for x86-64 that is in the image with all that it needs, and make the image again.';
  }
  if (name === 'write /tmp' || name === 'write /dev/shm' || name === 'devices') {
    return 'Make /tmp and /dev folders of the image, not links or files.';
  }
  return 'The clone is not confined: run `npm run setup`, then `mayfly doctor`, and report it (SECURITY.md).';
}

const BOOT = 'Run `npm run setup`: probe, agent and command line must be of one version of Mayfly.';

/** What was granted for the clone that sent the report. */
export interface Granted {
  readonly openFiles: number;
  readonly pids: number;
  readonly scratchBytes: number;
}

export function judgeLimits({ limits: found }: ProbeReport, granted: Granted): Check[] {
  const judge = (name: LimitName, most: number, unit: string): Check => {
    const { reached, error } = found[name];
    const detail = `${reached} of ${most} ${unit}${error === '' ? ', and nothing stopped it' : `, then: ${error}`}`;
    const inForce = error !== '' && reached <= most && reached * 2 >= most;
    return inForce ? pass(`limit: ${name}`, detail) : fail(`limit: ${name}`, detail, remedyOf(''));
  };
  return [
    judge('files', granted.openFiles, 'descriptors'),
    judge('processes', granted.pids, 'processes'),
    judge('scratch', granted.scratchBytes, 'bytes'),
  ];
}

/** Two clones of one template: nothing that identifies them may be the same. */
export function judgeUniqueness(one: ProbeReport, other: ProbeReport): Check[] {
  return IDENTITY.map((name) => {
    const [first, second] = [one.identity[name], other.identity[name]];
    const unique = first !== '' && second !== '' && first !== second;
    const detail = unique ? `${first.slice(0, 16)}, ${second.slice(0, 16)}` : `both have "${first.slice(0, 40)}"`;
    return unique ? pass(`unique: ${name}`, detail) : fail(`unique: ${name}`, detail, remedyOf(''));
  });
}

export function pass(name: string, detail: string): Check {
  return { name, result: 'pass', detail, remedy: '' };
}

export function fail(name: string, detail: string, remedy: string): Check {
  return { name, result: 'fail', detail, remedy };
}

export function skip(name: string, detail: string): Check {
  return { name, result: 'skip', detail, remedy: '' };
}
