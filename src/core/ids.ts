/**
 * Identifiers. A run id sorts by time of acceptance (48 bits of wall-clock milliseconds, then 80 random bits, in
 * Crockford base 32: the ULID layout), so journals and folders list in order without an index.
 */
import type { Clock } from './time.ts';
import type { Random } from './random.ts';

const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

export type RunId = string & { readonly brand: 'RunId' };

const RUN_ID = /^[0-9A-HJKMNP-TV-Z]{26}$/;

export function newRunId(clock: Clock, random: Random): RunId {
  let millis = clock.wallNanos() / 1_000_000n;
  let time = '';
  for (let i = 0; i < 10; i++) {
    time = ALPHABET.charAt(Number(millis & 31n)) + time;
    millis >>= 5n;
  }
  let tail = '';
  for (const byte of random.bytes(16)) tail += ALPHABET.charAt(byte & 31);
  return (time + tail) as RunId;
}

export function isRunId(text: string): text is RunId {
  return RUN_ID.test(text);
}

/** RFC 9562 version 4, from injected randomness: the clone's boot id. */
export function newUuid(random: Random): string {
  const bytes = random.bytes(16);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x40, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Milliseconds since the Unix epoch at which a run id was made. */
export function runIdMillis(id: RunId): number {
  let millis = 0;
  for (const letter of id.slice(0, 10)) millis = millis * 32 + ALPHABET.indexOf(letter);
  return millis;
}
