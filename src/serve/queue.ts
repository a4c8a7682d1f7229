/**
 * Events that wait for a place, in memory and bounded. Tenants take turns, and within a tenant its functions, so that
 * nobody's thousand events keep another one's single event waiting; what may not run now, because its function or its
 * tenant runs enough already, is passed over and keeps its place.
 */

export interface Waiting {
  readonly id: string;
  readonly tenant: string;
  readonly function: string;
}

export interface QueueOptions {
  readonly most: number;
}

/** Full: of this tenant, or altogether. */
export type Room = 'room' | 'tenant-full' | 'full';

export class FairQueue {
  readonly #most: number;
  /** Tenants in turn, each with its functions in turn, each with its events in order. */
  readonly #tenants = new Map<string, Map<string, Waiting[]>>();
  #length = 0;

  constructor({ most }: QueueOptions) {
    this.#most = most;
  }

  get length(): number {
    return this.#length;
  }

  lengthOf(tenant: string): number {
    let sum = 0;
    for (const line of this.#tenants.get(tenant)?.values() ?? []) sum += line.length;
    return sum;
  }

  /** Asked before an event is accepted: what was accepted is never turned away. */
  room(tenant: string, count: number, mostOfTenant: number): Room {
    if (this.#length + count > this.#most) return 'full';
    return this.lengthOf(tenant) + count > mostOfTenant ? 'tenant-full' : 'room';
  }

  push(item: Waiting): void {
    let functions = this.#tenants.get(item.tenant);
    if (functions === undefined) this.#tenants.set(item.tenant, (functions = new Map()));
    const line = functions.get(item.function);
    if (line === undefined) functions.set(item.function, [item]);
    else line.push(item);
    this.#length++;
  }

  /** The next one that may run; tenant and function go to the end of their rounds. */
  take(may: (item: Waiting) => boolean): Waiting | undefined {
    for (const [tenant, functions] of this.#tenants) {
      for (const [name, line] of functions) {
        const [first] = line;
        if (first === undefined || !may(first)) continue;
        line.shift();
        this.#length--;
        functions.delete(name);
        if (line.length > 0) functions.set(name, line);
        this.#tenants.delete(tenant);
        if (functions.size > 0) this.#tenants.set(tenant, functions);
        return first;
      }
    }
    return undefined;
  }
}
