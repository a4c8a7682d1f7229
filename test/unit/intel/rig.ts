/** Small feeds and snapshots for the tests of threat intelligence; addresses of RFC 5737, names of RFC 2606. */
import { IndexBuilder } from '../../../src/intel/index.ts';
import type { FeedDefaults } from '../../../src/intel/feed.ts';
import type { Indicator } from '../../../src/intel/indicator.ts';
import type { IntelSnapshot } from '../../../src/intel/snapshot.ts';

export const NOW = 1_795_000_000;
export const defaults: FeedDefaults = { confidence: 60, severity: 'medium', labels: ['feed'] };

export function indicator(more: Partial<Indicator> & Pick<Indicator, 'kind' | 'value'>): Indicator {
  return { confidence: 80, severity: 'high', validFrom: 0, validUntil: 0, labels: ['botnet'], id: '', ...more };
}

export const FRESH = {
  health: 'fresh', count: 0, freshAt: NOW, denies: true, reliability: 100, notes: [],
} as const;

/** Each list is one feed, named `feed-0` and so on. */
export function snapshotOf(...feeds: readonly (readonly Indicator[])[]): IntelSnapshot {
  const builder = new IndexBuilder(7);
  for (const [source, list] of feeds.entries()) {
    for (const { labels, ...one } of list) builder.add(source, { ...one, labels: labels.join(',') });
  }
  const status = (_: unknown, at: number) =>
    ({ ...FRESH, name: `feed-${at}` }) as const;
  return { index: builder.build(), feeds: feeds.map(status) };
}
