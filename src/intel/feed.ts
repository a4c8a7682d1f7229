/** What a feed is configured to be, what its parsers give back, and what is remembered of it between pulls. */
import type { BlocklistOptions } from './blocklist.ts';
import type { Indicator, Severity } from './indicator.ts';
import type { ThreatLevel } from '../profile/levels.ts';
import type { Finding, FindingKind } from './vet.ts';

/** Said of an indicator where its feed does not say it. */
export interface FeedDefaults {
  readonly confidence: number;
  readonly severity: Severity;
  readonly labels: readonly string[];
}

export interface FeedAuth {
  readonly kind: 'basic' | 'bearer' | 'header';
  /** Of `basic`. */
  readonly username: string;
  /** Of `header`, as in `X-Api-Key`. */
  readonly header: string;
  /** Name of the environment variable that has the password, token or key; the value is nowhere on disk. */
  readonly tokenEnv: string;
}

export type FeedFormat = 'lines' | 'hosts' | 'csv' | 'stix' | 'taxii' | 'misp' | 'misp-feed';

export interface Feed {
  readonly name: string;
  readonly format: FeedFormat;
  /** `https:` address (of a TAXII collection, a MISP folder), or an absolute path. */
  readonly location: string;
  readonly defaults: FeedDefaults;
  readonly blocklist: BlocklistOptions;
  readonly auth: FeedAuth | undefined;
  /** Hex; what was fetched must have it. */
  readonly sha256: string | undefined;
  /** Whoever publishes it signs with this key. */
  readonly minisign: string | undefined;
  readonly maxAgeSeconds: number;
  /** Between two pulls on a schedule. */
  readonly everySeconds: number;
  /** How far what it says is believed, 0 to 100: a factor of every probability. */
  readonly reliability: number;
  readonly tolerate: readonly FindingKind[];
  /** What it lists may not be connected to, whatever a rule allows; otherwise it only counts in the score. */
  readonly denies: boolean;
  /** Changes with every setting above: what was remembered under other settings is not continued. */
  readonly digest: string;
}

export interface FeedsConfig {
  readonly feeds: readonly Feed[];
  /** The least threat level of every event while a feed is not fresh. */
  readonly whenDegraded: ThreatLevel;
  readonly protect: readonly string[];
}

/** One document of a feed. */
export interface ParsedFeed {
  readonly indicators: readonly Indicator[];
  /** Ids that no longer hold. */
  readonly revoked: readonly string[];
  /** What was left out: why, and how often. */
  readonly skipped: ReadonlyMap<string, number>;
}

/** What is remembered of a feed: `intel/feeds/NAME/state.json`. Times are seconds since the epoch, 0: never. */
export interface FeedState {
  readonly stateVersion: 1;
  /** Of the settings that the good copy was pulled under. */
  readonly digest: string;
  /** Name of the good copy beside it, empty: none; and what it is. */
  readonly file: string;
  readonly sha256: string;
  readonly count: number;
  /** When the good copy was last known to be what the feed says. */
  readonly freshAt: number;
  readonly etag: string;
  readonly lastModified: string;
  /** When its publisher signed the good copy, seconds; 0: not signed. An older one is refused. */
  readonly signedAt: number;
  /** When a pull was tried last, and how many have failed since the last that did not. */
  readonly attemptedAt: number;
  readonly failures: number;
  /** TAXII: where the next pull goes on. */
  readonly addedAfter: string;
  /** What the last pull left out. */
  readonly notes: readonly string[];
  readonly quarantine: { readonly at: number; readonly count: number; readonly findings: readonly Finding[] } | null;
  readonly problem: { readonly at: number; readonly code: string; readonly message: string } | null;
}

export type FeedHealth = 'fresh' | 'stale' | 'quarantined' | 'failing' | 'missing';

/** The worst that is true of a feed. A stale copy is still used: dropping it would allow what it denies. */
export function healthOf(state: FeedState | undefined, maxAgeSeconds: number, nowSeconds: number): FeedHealth {
  if (state === undefined || state.file === '') return state?.quarantine ? 'quarantined' : 'missing';
  if (state.quarantine !== null) return 'quarantined';
  if (nowSeconds - state.freshAt > maxAgeSeconds) return 'stale';
  return state.problem === null ? 'fresh' : 'failing';
}
