/**
 * How much work an event is likely to be, from what can be known before it runs: its size, shape and attachments by
 * their real types, and what class of function it is for. Where the function has run before, what it then needed
 * counts instead. Deterministic, and monotone: a larger event is never estimated to be less. The estimate chooses
 * limits between a function's floor and its ceiling (`share`), so a wrong one costs waiting or memory, never
 * isolation.
 */

export type FunctionClass = 'compute' | 'image' | 'web' | 'database' | 'shell';

export interface ComplexityInput {
  /** Event as JSON, bytes. */
  readonly bytes: number;
  readonly depth: number;
  /** Values of the JSON. */
  readonly nodes: number;
  readonly attachments: readonly {
    /** Media type by content. */
    readonly type: string;
    readonly bytes: number;
    readonly unpackedBytes: number;
  }[];
  readonly functionClass: FunctionClass;
  /** 95th percentiles of this function's recent runs, as shares of its ceilings, 0 to 1. */
  readonly history?: { readonly runs: number; readonly cpu: number; readonly memory: number; readonly wall: number };
}

export interface Complexity {
  /** 0 to 100. */
  readonly value: number;
  /** Where between floor (0) and ceiling (1) each limit should be. */
  readonly share: { readonly cpu: number; readonly memory: number; readonly wall: number };
  readonly reasons: readonly { readonly points: number; readonly text: string }[];
}

/** Points of a function's class: what its kind of work needs beyond reading the event. */
const CLASS_POINTS: Readonly<Record<FunctionClass, number>> = {
  web: 5,
  database: 10,
  compute: 20,
  image: 20,
  shell: 15,
};
/** How much memory and time a byte of each kind costs who opens it, against a byte of text. */
const KIND_FACTORS: readonly (readonly [RegExp, number, string])[] = [
  [/^video\//, 8, 'video'],
  [/^image\//, 6, 'image'],
  [/zip|gzip|tar|7z|rar|openxmlformats|opendocument|zstd|x-xz|bzip2/, 5, 'archive or office document'],
  [/pdf|x-cfb|rtf|msword/, 4, 'document'],
  [/^audio\//, 3, 'audio'],
];
/** Runs before history says more than the event itself. */
const HISTORY_RUNS_MIN = 20;
/** A little above what was seen: a limit at the 95th percentile stops one run in twenty. */
const HISTORY_MARGIN = 1.5;

export function estimateComplexity(input: ComplexityInput): Complexity {
  const { bytes, depth, nodes, attachments, functionClass, history } = input;
  const reasons: { points: number; text: string }[] = [];
  const add = (points: number, text: string): void => {
    if (points > 0) reasons.push({ points, text });
  };
  add(CLASS_POINTS[functionClass], `function of class ${functionClass}`);
  add(logPoints(bytes, 1024, 5), `${bytes} bytes of event`);
  add(logPoints(nodes, 100, 4), `${nodes} values`);
  add(Math.min(10, Math.floor(depth / 8) * 2), `${depth} levels deep`);
  add(Math.min(10, attachments.length * 2), `${attachments.length} attachments`);
  let weighted = 0;
  const kinds = new Set<string>();
  for (const { type, bytes: packed, unpackedBytes } of attachments) {
    const [, factor, kind] = KIND_FACTORS.find(([form]) => form.test(type)) ?? [/^/, 1, 'other'];
    weighted += Math.max(packed * factor, unpackedBytes);
    kinds.add(kind);
  }
  add(logPoints(weighted, 4096, 5), `attachments to open: ${[...kinds].sort().join(', ')}`);
  const value = Math.min(
    100,
    reasons.reduce((sum, { points }) => sum + points, 0),
  );
  const estimated = value / 100;
  if (history === undefined || history.runs < HISTORY_RUNS_MIN) {
    return { value, share: { cpu: estimated, memory: estimated, wall: estimated }, reasons };
  }
  reasons.push({ points: 0, text: `limits from ${history.runs} recent runs of this function` });
  const seen = (share: number): number => Math.min(1, Math.max(0, share) * HISTORY_MARGIN);
  return { value, share: { cpu: seen(history.cpu), memory: seen(history.memory), wall: seen(history.wall) }, reasons };
}

/** `each` points for every fourfold above `from`, at most 25. */
function logPoints(amount: number, from: number, each: number): number {
  if (amount <= from) return 0;
  return Math.min(25, Math.floor((Math.log2(amount / from) / 2) * each));
}
