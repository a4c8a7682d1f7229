/** Why a profile is as it is, as a tree: every field with its value, and below it who wished what. */
import type { Reason, SealedProfile } from '../profile/profile.ts';
import type { Paint } from './io.ts';
import { formatBytes } from './units.ts';

/** Fields first, in the order of the profile; then what is said about threat and rules. */
export function formatReasons({ profile, reasons, digest }: SealedProfile, paint: Paint): string {
  const groups = new Map<string, Reason[]>();
  for (const reason of reasons) groups.set(reason.field, [...(groups.get(reason.field) ?? []), reason]);
  const lines = [`${paint.bold('profile')} ${digest}`];
  const fields = [...groups].sort(([a], [b]) => Number(isAbout(b)) - Number(isAbout(a)));
  for (const [index, [field, because]] of fields.entries()) {
    const last = index === fields.length - 1;
    const value = showValue(field, valueAt(profile, field));
    lines.push(`${last ? '└─' : '├─'} ${paint.bold(field)}${value === undefined ? '' : ` = ${paint.cyan(value)}`}`);
    for (const [at, reason] of because.entries()) {
      const branch = `${last ? '   ' : '│  '}${at === because.length - 1 ? '└─' : '├─'}`;
      lines.push(
        `${branch} ${reason.overruled === true ? paint.dim(`${reason.because} (overruled)`) : reason.because}`,
      );
    }
  }
  return `${lines.join('\n')}\n`;
}

/** Threat and rules are no fields of the profile: they explain it. */
function isAbout(field: string): boolean {
  return field === 'threat' || field === 'rules';
}

function valueAt(profile: SealedProfile['profile'], field: string): unknown {
  let value: unknown = profile;
  for (const part of field.split('.')) {
    value =
      typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[part] : undefined;
  }
  return value;
}

function showValue(field: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'number' && field.endsWith('Bytes')) return formatBytes(value);
  if (typeof value === 'number' && field.endsWith('Millis')) return `${value} ms`;
  if (typeof value === 'number' && field.endsWith('Micros')) return `${value} µs`;
  return typeof value === 'string' ? value : JSON.stringify(value);
}
