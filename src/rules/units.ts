/** Values of profile fields as people write them: `512M`, `5s`, `50%`, `64`. */
import { fieldOrders, showFieldValue } from '../profile/order.ts';
import type { FieldName, FieldOrder, FieldValue, Unit } from '../profile/order.ts';
import { limits } from '../core/limits.ts';

const factors: Readonly<Record<Unit, Readonly<Record<string, number>>>> = {
  bytes: { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 },
  millis: { '': 1, ms: 1, s: 1000, m: 60_000 },
  cpu: { '': 1, '%': limits.cpuPeriodMicros / 100 },
  count: { '': 1 },
};

const examples: Readonly<Record<Unit, string>> = { bytes: '64M', millis: '5s', cpu: '50%', count: '64' };

/** The value in the field's own unit, or what is wrong with it. */
export function parseFieldValue(field: FieldName, value: unknown): FieldValue | { readonly problem: string } {
  const order: FieldOrder = fieldOrders[field];
  if (order.kind === 'ladder') {
    if (typeof value === 'string' && order.steps.includes(value)) return value;
    return { problem: `it must be ${order.steps.join(' or ')}` };
  }
  const match = /^(\d{1,15}(?:\.\d{1,6})?)([A-Za-z%]{0,2})$/.exec(String(value));
  const factor = match === null ? undefined : factors[order.unit][match[2] ?? ''];
  if (match === null || factor === undefined) return { problem: `it must be written as in ${examples[order.unit]}` };
  const number = Math.round(Number(match[1]) * factor);
  if (number >= order.min && number <= order.max) return number;
  const [least, most] = [showFieldValue(field, order.min), showFieldValue(field, order.max)];
  return { problem: `${showFieldValue(field, number)} is out of bounds: ${least} to ${most}` };
}
