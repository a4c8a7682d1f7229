/**
 * Gives back what the ledger holds, in the order in which it can be given back (machine, bridge, paths), then looks
 * whether it is gone. Every step is idempotent and a failed one does not keep the next from running.
 */
import { describeHolding } from './ledger.ts';
import type { Ledger, LedgerItem } from './ledger.ts';
import { remains } from './verify.ts';
import type { VerifyOptions } from './verify.ts';

/** Proof that what a run held is gone, or the list of what is not. */
export interface Release {
  /** Looked for independently and found gone: everything. Only then may a run be sealed. */
  readonly verified: boolean;
  /** What the ledger had on record, as in `machine 4711`, in the order it was released. */
  readonly released: readonly string[];
  /** What is still there, with the reason. */
  readonly left: readonly string[];
}

const ORDER = { machine: 0, bridge: 1, path: 2 } as const;

/** Never rejects. Called again, it takes up what is left. */
export async function releaseAll(ledger: Ledger, look: VerifyOptions): Promise<Release> {
  const items = ledger.items.toSorted((a, b) => ORDER[a.holding.kind] - ORDER[b.holding.kind]);
  const failures = new Map<LedgerItem, string>();
  for (const item of items) {
    try {
      await item.release();
    } catch (thrown) {
      failures.set(item, (thrown as Error).message);
    }
  }
  const released: string[] = [];
  const left: string[] = [];
  const gone: LedgerItem[] = [];
  for (const item of items) {
    const name = describeHolding(item.holding);
    const seen = await remains(item.holding, look);
    if (seen === undefined) {
      released.push(name);
      gone.push(item);
      continue;
    }
    const failure = failures.get(item);
    left.push(failure === undefined ? `${name}: ${seen}` : `${name}: ${seen} (${failure})`);
  }
  ledger.settle(gone);
  return { verified: left.length === 0, released, left };
}
