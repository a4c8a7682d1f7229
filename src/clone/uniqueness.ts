/**
 * Every clone of a template wakes up with the same memory: the same random pool, clock, machine-id, boot id and name.
 * The host gives each one its own, and a clone that does not report exactly those is destroyed before it sees an event.
 *
 * What the reply cannot prove, that a warm language runtime has renewed its own generators, the runtime itself reports
 * as phase `renew` (docs/FORMATS.md).
 */
import type { Clock } from '../core/time.ts';
import type { Random } from '../core/random.ts';
import type { RunId } from '../core/ids.ts';
import { newUuid } from '../core/ids.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Message } from '../bridge/message.ts';

/** What ADOPT carries, and the nonce that every frame of this clone has from then on. */
export interface Identity {
  readonly nonce: bigint;
  readonly adopt: Message<'ADOPT'>;
}

export interface IdentityOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly runId: RunId;
}

export function newIdentity({ clock, random, runId }: IdentityOptions): Identity {
  // 0 is the nonce of templates.
  const nonce = random.bytes(8).readBigUInt64LE() || 1n;
  return {
    nonce,
    adopt: {
      entropy: random.bytes(64),
      clockUnixNanos: clock.wallNanos(),
      machineId: random.bytes(16).toString('hex'),
      bootId: newUuid(random),
      hostname: `mf-${runId.toLowerCase()}`,
    },
  };
}

/** In what the reply differs from what was given, one line each; empty when the clone is its own. */
export function compareIdentity(given: Message<'ADOPT'>, reply: Message<'ADOPTED'>, elapsedMillis: number): string[] {
  const differences: string[] = [];
  if (reply.reseeded !== 1) differences.push('the kernel was not reseeded');
  for (const name of ['machineId', 'bootId', 'hostname'] as const) {
    if (reply[name] === given[name]) continue;
    const shown = JSON.stringify(printableLine(reply[name], 80));
    differences.push(`${name} is ${shown}, not ${JSON.stringify(given[name])}`);
  }
  // The guest read its clock between now and then: at least what it was set to, and later by no more than passed here.
  const aheadMillis = Number(reply.clockUnixNanos - given.clockUnixNanos) / 1e6;
  const tolerance = limits.clockToleranceMillis;
  if (aheadMillis < -tolerance || aheadMillis > elapsedMillis + tolerance) {
    differences.push(`the clock is off by ${aheadMillis.toFixed(0)} ms`);
  }
  return differences;
}
