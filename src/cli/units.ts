/** Durations and sizes as people write them. */
import { MayflyError } from '../core/errors.ts';

const MILLIS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };
const BYTES: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };

/** `500ms`, `30s`, `2m` or plain seconds, in ms. Throws E_USAGE naming the option. */
export function parseDuration(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text);
  const factor = MILLIS[match?.[2] ?? 's'];
  if (match === null || factor === undefined) {
    throw new MayflyError('E_USAGE', `${option} ${text}: not a duration`, { remedy: 'Write it as 500ms, 30s or 2m.' });
  }
  return Math.round(Number(match[1]) * factor);
}

/** `256M`, `1G`, `65536`, with an optional `B` or `iB`; powers of 1024, in bytes. Throws E_USAGE naming the option. */
export function parseSize(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?$/i.exec(text);
  const factor = BYTES[(match?.[2] ?? '').toUpperCase()];
  if (match === null || factor === undefined) {
    throw new MayflyError('E_USAGE', `${option} ${text}: not a size`, { remedy: 'Write it as 65536, 256M or 1G.' });
  }
  return Math.round(Number(match[1]) * factor);
}

export function formatBytes(bytes: number): string {
  if (bytes >= 1024 ** 3) return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
  if (bytes >= 1024 ** 2) return `${(bytes / 1024 ** 2).toFixed(bytes >= 10 * 1024 ** 2 ? 0 : 1)} MiB`;
  if (bytes >= 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${bytes} B`;
}

export function formatMillis(millis: number): string {
  return millis >= 10_000 ? `${(millis / 1000).toFixed(1)} s` : `${millis.toFixed(millis < 100 ? 1 : 0)} ms`;
}
