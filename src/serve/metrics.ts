/** Numbers for Prometheus, in its text format. Labels come from names that were checked, codes and stages: bounded. */
import { limits } from '../core/limits.ts';

type Labels = Readonly<Record<string, string>>;

/** Seconds: a waiting clone under KVM answers in milliseconds, a cold one under TCG in tens of seconds. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

interface Family {
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly values: Map<string, number>;
}

export class Metrics {
  readonly #families = new Map<string, Family>();
  readonly #gauges: (() => void)[] = [];

  accepted(tenant: string, name: string, count: number): void {
    this.#add('mayfly_events_accepted_total', 'Events on the medium.', { tenant, function: name }, count);
  }

  refused(code: string): void {
    this.#add('mayfly_events_refused_total', 'Requests that were answered with an error.', { code });
  }

  ended(tenant: string, name: string, code: string, millis: number): void {
    this.#add('mayfly_events_ended_total', 'Events at an end, by code.', { tenant, function: name, code });
    this.#observe('mayfly_event_seconds', 'From acceptance to the end.', { tenant, function: name }, millis / 1000);
  }

  retried(code: string): void {
    this.#add('mayfly_attempts_repeated_total', 'Attempts that ended in another one, by code.', { code });
  }

  ran(cloneMade: boolean): void {
    this.#add('mayfly_clones_total', 'Clones that events met.', { clone: cloneMade ? 'made' : 'waited' });
  }

  stage(stage: string, millis: number): void {
    this.#observe('mayfly_stage_seconds', 'Stages of a run.', { stage }, millis / 1000);
  }

  request(route: string, status: number, millis: number): void {
    this.#add('mayfly_http_requests_total', 'Answers, by route and status.', { route, status: String(status) });
    this.#observe('mayfly_http_seconds', 'From request to answer.', { route }, millis / 1000);
  }

  /** Asked for when the numbers are. */
  gauge(name: string, help: string, read: () => number, labels: Labels = {}): void {
    this.#gauges.push(() => this.#family(name, help, 'gauge').values.set(key(name, labels), read()));
  }

  render(): string {
    for (const read of this.#gauges) read();
    const lines: string[] = [];
    for (const [name, { help, type, values }] of [...this.#families].sort(([a], [b]) => (a < b ? -1 : 1))) {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
      for (const [series, value] of values) lines.push(`${series} ${value}`);
    }
    return `${lines.join('\n')}\n`;
  }

  #add(name: string, help: string, labels: Labels, count = 1): void {
    this.#bump(this.#family(name, help, 'counter'), key(name, labels), count);
  }

  #observe(name: string, help: string, labels: Labels, value: number): void {
    const family = this.#family(name, help, 'histogram');
    for (const bound of BUCKETS) {
      this.#bump(family, key(`${name}_bucket`, { ...labels, le: String(bound) }), value <= bound ? 1 : 0);
    }
    this.#bump(family, key(`${name}_bucket`, { ...labels, le: '+Inf' }), 1);
    this.#bump(family, key(`${name}_sum`, labels), value);
    this.#bump(family, key(`${name}_count`, labels), 1);
  }

  #bump({ values }: Family, series: string, by: number): void {
    const before = values.get(series);
    if (before === undefined && values.size >= limits.metricSeriesMax) return;
    values.set(series, (before ?? 0) + by);
  }

  #family(name: string, help: string, type: Family['type']): Family {
    let family = this.#families.get(name);
    if (family === undefined) this.#families.set(name, (family = { help, type, values: new Map() }));
    return family;
  }
}

function key(name: string, labels: Labels): string {
  const pairs = Object.entries(labels).map(([label, value]) => `${label}="${escaped(value)}"`);
  return pairs.length === 0 ? name : `${name}{${pairs.join(',')}}`;
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
