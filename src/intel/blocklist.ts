/**
 * Plain lists, one indicator a line: addresses, domains, URLs or hashes as they come, hosts files, and CSV as
 * abuse.ch and others publish it. Read a line at a time, because such lists have millions of lines.
 */
import type { FeedDefaults } from './feed.ts';
import { classify, normalise, parseAddress, refang } from './indicator.ts';
import type { Indicator, IndicatorKind } from './indicator.ts';
import { secondsOf } from './record.ts';

export interface BlocklistOptions {
  readonly format: 'lines' | 'hosts' | 'csv';
  /** What the values are; absent: each line says by its form. */
  readonly kind?: IndicatorKind;
  /** CSV: number of the column, from 0, that has the value; absent: the first that is an indicator. */
  readonly column?: number;
  /** CSV: column of the time when it was first seen. */
  readonly timeColumn?: number;
  readonly separator?: string;
}

/** Names that hosts files list for the machine itself. */
const OWN_NAMES = new Set([
  'localhost',
  'localhost.localdomain',
  'local',
  'broadcasthost',
  'ip6-localhost',
  'ip6-loopback',
  'ip6-localnet',
  'ip6-mcastprefix',
  'ip6-allnodes',
  'ip6-allrouters',
  'ip6-allhosts',
  '0.0.0.0',
]);

/** The indicators of one line: none for comments and headers; undefined when it should have had one. */
export function parseLine(line: string, options: BlocklistOptions, defaults: FeedDefaults): Indicator[] | undefined {
  const text = line.replace(/^\uFEFF/, '').trim();
  if (text === '' || /^(#|;|\/\/|!)/.test(text)) return [];
  const make = (found: { kind: IndicatorKind; value: string }, validFrom = 0): Indicator => ({
    ...found,
    confidence: defaults.confidence,
    severity: defaults.severity,
    validFrom,
    validUntil: 0,
    labels: defaults.labels,
    id: '',
  });
  switch (options.format) {
    case 'hosts': {
      const [address, ...names] = text.replace(/#.*/, '').trim().split(/\s+/);
      if (parseAddress(address ?? '') === undefined) return undefined;
      const wanted = names.filter((name) => !OWN_NAMES.has(name.toLowerCase()));
      const domains = wanted.map((name) => normalise('domain', name)).filter((name) => name !== undefined);
      return domains.length === wanted.length ? domains.map((value) => make({ kind: 'domain', value })) : undefined;
    }
    case 'csv': {
      const cells = splitCsv(text, options.separator ?? ',');
      const candidates = options.column === undefined ? cells : [cells[options.column] ?? ''];
      const validFrom = options.timeColumn === undefined ? 0 : secondsOf(isoOf(cells[options.timeColumn] ?? ''));
      for (const cell of candidates) {
        const found = indicatorIn(cell, options.kind);
        if (found !== undefined) return [make(found, validFrom)];
      }
      return undefined;
    }
    case 'lines': {
      // Some lists append a note: `192.0.2.1 # botnet`, `192.0.2.0/24 ; SBL1`.
      const found = indicatorIn(text.split(/\s+[#;]|\s/, 1)[0] ?? '', options.kind);
      return found === undefined ? undefined : [make(found)];
    }
  }
}

function indicatorIn(
  text: string,
  kind: IndicatorKind | undefined,
): { kind: IndicatorKind; value: string } | undefined {
  if (kind === undefined) return classify(text) ?? addressWithPort(text);
  const value = normalise(kind, refang(text.trim())) ?? (kind === 'ip' ? addressWithPort(text)?.value : undefined);
  return value === undefined ? undefined : { kind, value };
}

function addressWithPort(text: string): { kind: 'ip'; value: string } | undefined {
  const match = /^(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}$/.exec(text.trim());
  const value = match === null ? undefined : normalise('ip', match[1] ?? '');
  return value === undefined ? undefined : { kind: 'ip', value };
}

/** Quotes as in RFC 4180, but within one line; a quote that never closes ends with the line. */
function splitCsv(line: string, separator: string): string[] {
  const cells: string[] = [];
  let at = 0;
  while (at <= line.length) {
    while (line.charAt(at) === ' ') at += 1;
    if (line.charAt(at) === '"') {
      let end = at + 1;
      while (end < line.length && (line.charAt(end) !== '"' || line.charAt(end + 1) === '"')) {
        end += line.charAt(end) === '"' ? 2 : 1;
      }
      cells.push(line.slice(at + 1, end).replaceAll('""', '"'));
      const next = line.indexOf(separator, end);
      at = next < 0 ? line.length + 1 : next + separator.length;
    } else {
      const next = line.indexOf(separator, at);
      cells.push(line.slice(at, next < 0 ? line.length : next).trim());
      at = next < 0 ? line.length + 1 : next + separator.length;
    }
  }
  return cells;
}

/** abuse.ch writes `2026-11-24 10:00:00 UTC`. */
function isoOf(text: string): string {
  return text.trim().replace(/^(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})(?: UTC)?$/, '$1T$2Z');
}
