/**
 * Listed destinations are denied whatever a rule allows, also those that are not in the event: a function must not be
 * led to them by what it downloads. Asked at each query and dial; pure, and as quick as a lookup.
 */
import { holds } from './assess.ts';
import type { IntelSnapshot } from './snapshot.ts';
import { provenance } from './threat.ts';

/** Undefined when no feed that may deny lists it at that time. Name and address are canonical. */
export function deniedDestination(
  { index, feeds }: IntelSnapshot,
  { name, address }: { readonly name: string | undefined; readonly address: string | undefined },
  nowSeconds: number,
): string | undefined {
  for (const [kind, value] of [['domain', name], ['ip', address]] as const) {
    if (value === undefined) continue;
    for (const { source: number, ...hit } of index.lookup(kind, value)) {
      const feed = feeds[number];
      if (feed === undefined || !feed.denies || !holds(hit, nowSeconds)) continue;
      const of = hit.value === value ? value : `${value} (in ${hit.value})`;
      return provenance(of, { ...hit, source: feed.name });
    }
  }
  return undefined;
}
