/**
 * What "more restrictive" means, field by field, in one table: rules, threat levels and tests all read it here.
 *
 * Every field is a lattice. Of several wishes for one field the result is the same in any order: the largest permission
 * counts, then the strictest restriction, and restriction beats permission.
 */
import { limits } from '../core/limits.ts';
import { executeLevels } from './apparmor.ts';
import type { Profile } from './profile.ts';
import { syscallLevels } from './seccomp.ts';

const MiB = 1024 * 1024;

export type Unit = 'bytes' | 'millis' | 'cpu' | 'count';

export type FieldOrder =
  /** Less is more restrictive; bounds are those of what may be asked for. */
  | {
      readonly kind: 'number';
      readonly unit: Unit;
      readonly min: number;
      readonly max: number;
      readonly byDefault: number;
    }
  /** From permissive to restrictive. */
  | { readonly kind: 'ladder'; readonly steps: readonly string[] };

/** Every field that a rule or a level can change. */
export const fieldOrders = {
  'limits.memoryBytes': number('bytes', limits.memoryBytesMin, limits.memoryBytesMax, limits.memoryBytesDefault),
  'limits.wallMillis': number('millis', 1, limits.wallMillisMax, limits.wallMillisDefault),
  'limits.cpuQuotaMicros': number('cpu', limits.cpuQuotaMicrosMin, limits.cpuPeriodMicros, limits.cpuPeriodMicros),
  'limits.pids': number('count', 1, limits.pidsMax, limits.pidsDefault),
  'limits.openFiles': number('count', 16, limits.openFilesMax, limits.openFilesDefault),
  'limits.scratchBytes': number('bytes', MiB, limits.scratchBytesMax, limits.scratchBytesDefault),
  'limits.diskReadBytesPerSecond': number('bytes', MiB, limits.diskReadBytesMax, limits.diskReadBytesDefault),
  'limits.diskReadOperationsPerSecond': number(
    'count', limits.diskReadOperationsMin, limits.diskReadOperationsMax, limits.diskReadOperationsDefault,
  ),
  'limits.stdoutBytes': number('bytes', 1, limits.stdoutBytesMax, limits.stdoutBytesMax),
  'limits.stderrBytes': number('bytes', 1, limits.stderrBytesMax, limits.stderrBytesMax),
  'limits.outputBytes': number('bytes', 1, limits.outputBytesMax, limits.outputBytesMax),
  'kernel.syscalls': { kind: 'ladder', steps: syscallLevels },
  'kernel.execute': { kind: 'ladder', steps: executeLevels },
  'isolation.minimum': { kind: 'ladder', steps: ['tcg', 'kvm'] },
  // Watching more takes more from whoever is watched.
  'forensics.capture': { kind: 'ladder', steps: ['never', 'sample', 'on-violation', 'always'] },
  'forensics.retentionDays': number('count', 1, limits.retentionDaysMax, limits.retentionDaysDefault),
} as const satisfies Record<string, FieldOrder>;

export type FieldName = keyof typeof fieldOrders;

export type FieldValue = number | string;

export const fieldNames = Object.keys(fieldOrders) as FieldName[];

function number(unit: Unit, min: number, max: number, byDefault: number) {
  return { kind: 'number', unit, min, max, byDefault } as const;
}

/** Position on the field's order: less is more restrictive. */
function permission(field: FieldName, value: FieldValue): number {
  const order: FieldOrder = fieldOrders[field];
  return order.kind === 'number' ? Number(value) : -order.steps.indexOf(String(value));
}

/** Whether `a` is strictly more restrictive than `b`. */
export function isStricter(field: FieldName, a: FieldValue, b: FieldValue): boolean {
  return permission(field, a) < permission(field, b);
}

export function fieldOf(profile: Profile, field: FieldName): FieldValue {
  const [group, name] = field.split('.') as ['limits' | 'kernel' | 'isolation' | 'forensics', string];
  return (profile[group] as unknown as Readonly<Record<string, FieldValue>>)[name] as FieldValue;
}

/** A wish of a rule or a level for one field. */
export interface Wish {
  readonly field: FieldName;
  readonly effect: 'permit' | 'restrict';
  readonly value: FieldValue;
  /** Who wishes it, as in `rule small-uploads (uploads.yaml:12)`. */
  readonly by: string;
}

export interface Settled {
  readonly value: FieldValue;
  /** Every wish, in a fixed order; the last one that is not overruled has set the value. */
  readonly wishes: readonly (Wish & { readonly overruled: boolean })[];
}

/** The value of a field after all wishes for it. The order in which they come does not matter. */
export function settle(field: FieldName, start: FieldValue, wishes: readonly Wish[]): Settled {
  const sorted = wishes.filter((wish) => wish.field === field).sort((a, b) => rank(a, b));
  let value = start;
  const seen = sorted.map((wish) => {
    const sets = wish.effect === 'permit' ? isStricter(field, value, wish.value) : isStricter(field, wish.value, value);
    if (sets) value = wish.value;
    return { wish, sets };
  });
  // Sorted from weak to strong, every wish that set the value was overruled by the next one that did.
  const last = seen.findLastIndex(({ sets }) => sets);
  return { value, wishes: seen.map(({ wish }, index) => ({ ...wish, overruled: index !== last })) };
}

/** Permissions before restrictions, each from weak to strong, equals by name. */
function rank(a: Wish, b: Wish): number {
  if (a.effect !== b.effect) return a.effect === 'permit' ? -1 : 1;
  const difference = permission(a.field, a.value) - permission(b.field, b.value);
  if (difference !== 0) return a.effect === 'permit' ? difference : -difference;
  return a.by < b.by ? 1 : -1;
}

/** For people, as in `64 MiB`. */
export function showFieldValue(field: FieldName, value: FieldValue): string {
  const order: FieldOrder = fieldOrders[field];
  if (order.kind === 'ladder' || typeof value === 'string') return String(value);
  switch (order.unit) {
    case 'bytes':
      return value % 1024 ** 2 === 0
        ? `${value / 1024 ** 2} MiB`
        : value % 1024 === 0
          ? `${value / 1024} KiB`
          : `${value} bytes`;
    case 'millis':
      return value % 1000 === 0 ? `${value / 1000} s` : `${value} ms`;
    case 'cpu':
      return `${(value * 100) / limits.cpuPeriodMicros} % of a CPU`;
    case 'count':
      return String(value);
  }
}
