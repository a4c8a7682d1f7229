/**
 * Indicators as Mayfly keeps them: one line each (docs/FORMATS.md), whatever the feed's own format, so that the last
 * good copy of any feed is read by one small parser, a line at a time.
 */
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { indicatorKinds, severities } from './indicator.ts';
import type { Indicator, IndicatorKind, Severity } from './indicator.ts';

/** As stored: labels are one text, because the index keeps each list of them once. */
export type StoredIndicator = Omit<Indicator, 'labels'> & { readonly labels: string };

const kinds: ReadonlyMap<string, IndicatorKind> = new Map(indicatorKinds.map((kind) => [kind, kind]));
const severityNames: ReadonlyMap<string, Severity> = new Map(severities.map((severity) => [severity, severity]));

export function formatRecord(indicator: Indicator): string {
  const { kind, value, confidence, severity, validFrom, validUntil, labels, id } = indicator;
  const fields = [kind, value, confidence, severity, validFrom, validUntil, cleanLabels(labels).join(','), cleanId(id)];
  return fields.join('\t');
}

/** Undefined when the line is not one that `formatRecord` writes. */
export function parseRecord(line: string): StoredIndicator | undefined {
  const fields = line.split('\t');
  const [kind, severity] = [kinds.get(fields[0] ?? ''), severityNames.get(fields[3] ?? '')];
  const value = fields[1] ?? '';
  const [confidence, validFrom, validUntil] = [Number(fields[2]), Number(fields[4]), Number(fields[5])];
  if (fields.length !== 8 || kind === undefined || severity === undefined || value === '') return undefined;
  if (!within(confidence, 100) || !within(validFrom, 0xffff_ffff) || !within(validUntil, 0xffff_ffff)) return undefined;
  return { kind, value, confidence, severity, validFrom, validUntil, labels: fields[6] ?? '', id: fields[7] ?? '' };
}

function within(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

function cleanLabels(labels: readonly string[]): string[] {
  const clean = labels
    .slice(0, limits.intelLabelsMax)
    .map((label) => printableLine(label, limits.intelLabelUnits).replace(/[,\t]/g, ' ').trim());
  return [...new Set(clean)].filter((label) => label !== '');
}

function cleanId(id: string): string {
  return printableLine(id, 120).replaceAll('\t', ' ');
}

/** Seconds since the epoch of an ISO time; 0 when there is none or it is not one. */
export function secondsOf(time: unknown): number {
  const millis = typeof time === 'string' ? Date.parse(time) : Number.NaN;
  return Number.isNaN(millis) ? 0 : Math.min(0xffff_ffff, Math.max(0, Math.floor(millis / 1000)));
}

export function confidenceOf(value: unknown, byDefault: number): number {
  return typeof value === 'number' && value >= 0 && value <= 100 ? Math.round(value) : byDefault;
}

export function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : [];
}
