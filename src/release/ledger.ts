/**
 * Everything that a run holds outside its own heap, written down before it is used. What is not in the ledger is not
 * released; so a stage takes nothing without an entry here, and the journal has the entry first.
 */
import { MayflyError } from '../core/errors.ts';
import type { Holding } from '../journal/entry.ts';
import type { Journal } from '../journal/journal.ts';

export interface LedgerItem {
  readonly holding: Holding;
  /** Gives it back. Idempotent; may reject. */
  readonly release: () => Promise<void>;
}

export class Ledger {
  readonly #journal: Journal;
  #items: LedgerItem[] = [];

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  get items(): readonly LedgerItem[] {
    return this.#items;
  }

  /** A machine is about to be spawned: its pid is not known yet. */
  async announce(attempt: number): Promise<void> {
    await this.#journal.append({ kind: 'cloning', attempt });
  }

  /** Rejects with E_INTERNAL when the journal cannot take the entry; the item is in the ledger all the same. */
  async hold(item: LedgerItem): Promise<void> {
    this.#items.push(item);
    try {
      await this.#journal.append({ kind: 'holding', holding: item.holding });
    } catch (cause) {
      throw new MayflyError('E_INTERNAL', `the run's journal could not be written: ${(cause as Error).message}`, {
        cause,
        remedy: 'Check that MAYFLY_HOME is writable and has space.',
      });
    }
  }

  /** Verified to be gone: no longer part of the ledger. */
  settle(gone: readonly LedgerItem[]): void {
    this.#items = this.#items.filter((item) => !gone.includes(item));
  }
}

/** For people and evidence, as in `machine 4711`. */
export function describeHolding(holding: Holding): string {
  switch (holding.kind) {
    case 'machine':
      return `machine ${holding.pid}`;
    case 'bridge':
      return `bridge of machine ${holding.pid}`;
    case 'path':
      return `path ${holding.path}`;
  }
}
