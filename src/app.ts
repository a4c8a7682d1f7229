/**
 * Mayfly as its command line uses it: the machine's repository, engine and templates, found and opened when first
 * needed, and `run`, which sends one event on its journey. main.ts gives it the real clock, randomness, disk and
 * processes.
 *
 * Each of its methods loads what it needs: `mayfly version` has no use for the engine, nor `mayfly images` for QEMU,
 * and to load them takes longer than to answer.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { AcceleratorMode } from './clone/accelerator.ts';
import { openJail } from './clone/jail.ts';
import type { Jail } from './clone/jail.ts';
import type { Pool } from './clone/pool.ts';
import type { QemuFacts } from './clone/probe.ts';
import type { StockedTemplate } from './clone/stock.ts';
import type { BuildWatch, Template } from './clone/template.ts';
import type { QemuOptions } from './clone/vmm/qemu.ts';
import type { ComposeOptions } from './compose.ts';
import { MayflyError } from './core/errors.ts';
import { limits } from './core/limits.ts';
import type { BuildOrder, BuiltImage } from './build.ts';
import type { CheckedImage, CheckOrder } from './conformance.ts';
import type { Event } from './event/event.ts';
import type { VerifyEvidence } from './evidence/read.ts';
import type { Forensics } from './forensics.ts';
import type { ImageAdmin } from './image/admin.ts';
import type { Signer } from './image/envelope.ts';
import type { Image, Repository } from './image/repository.ts';
import type { Intel } from './intel/intel.ts';
import { loadEngine } from './load-engine.ts';
import type { OwnerIdentity } from './journal/entry.ts';
import type { ImageChoice } from './profile/choose.ts';
import type { Profile, SealedProfile } from './profile/profile.ts';
import type { GivenKey } from './records.ts';
import type { EventSource, Threat } from './rules/context.ts';
import type { Reclaimed } from './release/reclaim.ts';
import type { Outcome } from './stages.ts';
import type { Places } from './serve/places.ts';
import type { AppOptions, ScoredEvent, Engine, RunOrder, ImageOrder, AppObserver } from './order.ts';

export class App {
  readonly home: string;
  readonly euid: number;
  readonly jail: Jail;
  readonly #options: AppOptions;
  #intel: Promise<Intel> | undefined;
  #repository: Promise<Repository> | undefined;
  #pool: Pool | undefined;
  /** Images of orders, by their file system's digest: there are no more than images in the repository. */
  readonly #used = new Map<string, Image>();
  readonly #engines = new Map<AcceleratorMode, Promise<Engine>>();

  constructor(options: AppOptions, kvmGroup: number | undefined) {
    this.#options = options;
    this.home = options.home;
    const { euid, pid } = options;
    this.euid = euid;
    this.jail = openJail({ euid, pid, ...(kvmGroup === undefined ? {} : { kvmGroup }) });
  }

  /** Rejects with E_SETUP_MISSING or E_ARTEFACT_CORRUPT. */
  repository(): Promise<Repository> {
    this.#repository ??= import('./image/repository.ts').then(({ openRepository }) => openRepository(this.home));
    return this.#repository;
  }

  /** For everything that changes the repository. */
  async images(): Promise<ImageAdmin> {
    const { openAdmin } = await import('./image/admin.ts');
    const { home, random, disk, clock } = this.#options;
    const now = (): number => Number(clock.wallNanos() / 1_000_000n);
    return openAdmin({ home, random, disk, now, after: clock.after, process: await this.#builder() });
  }

  /** Where docker, podman and skopeo keep credentials for registries, as their documentation says. */
  authFile(): string | undefined {
    const { environment } = this.#options;
    const [named, folder, user] = ['REGISTRY_AUTH_FILE', 'DOCKER_CONFIG', 'HOME'].map(environment);
    if (named !== undefined && named !== '') return named;
    if (folder !== undefined && folder !== '') return join(folder, 'config.json');
    return user === undefined || user === '' ? undefined : join(user, '.docker', 'config.json');
  }

  /** Rejects with E_QEMU_MISSING. */
  async qemu(): Promise<QemuFacts> {
    const { probeQemu } = await import('./clone/probe.ts');
    return await probeQemu(this.home);
  }

  /** Rejects with E_QEMU_MISSING, E_ACCELERATOR, E_SETUP_MISSING or E_ARTEFACT_CORRUPT. */
  engine(mode: AcceleratorMode): Promise<Engine> {
    const known = this.#engines.get(mode);
    if (known !== undefined) return known;
    const engine = this.#openEngine(mode);
    this.#engines.set(mode, engine);
    engine.catch(() => this.#engines.delete(mode));
    return engine;
  }

  /** Ends what earlier processes left behind. */
  async reclaim(): Promise<Reclaimed> {
    const { isUnusable, reclaimAbandoned } = await import('./compose.ts');
    const { disk, processes, clock } = this.#options;
    const wait = (millis: number): Promise<void> => new Promise((resolve) => clock.after(millis, resolve));
    const signer = (): Promise<Signer> => this.#signer();
    return await reclaimAbandoned({ home: this.home, disk, processes, clock, signer, wait }).catch((cause: unknown) => {
      if (!isUnusable(cause)) throw cause;
      throw new MayflyError('E_HOME_UNUSABLE', `${this.home}: ${(cause as Error).message}`, { cause });
    });
  }

  /** Rejects only when the event was not accepted or nothing can run here; see `runEvent`. */
  async run(order: RunOrder, observer: AppObserver = {}): Promise<Outcome> {
    const [{ runEvent }, { createStages }, { contractOf }] = await Promise.all([
      import('./pipeline.ts'), import('./compose.ts'), import('./output.ts'),
    ]);
    const { request, engine, image } = await this.#prepare(order);
    observer.engine?.(engine);
    const composition = await this.#compose(engine, image, (step) => observer.progress?.(step));
    const contract = await contractOf(order, this, this.#options.clock);
    const demanded = contract === undefined ? request : { ...request, output: contract };
    const stages = createStages({ ...composition, pool: this.#pool });
    return await runEvent(stages, demanded, observer).finally(() => contract?.schema?.close());
  }

  /** The profile that an order gets, without a VM. Rejects as `run` does. */
  async expect(order: RunOrder): Promise<SealedProfile> {
    const [{ decideProfile }, { acceptEvent }, { newRunId }] = await Promise.all([
      import('./policy.ts'), import('./event/accept.ts'), import('./core/ids.ts'),
    ]);
    const { clock, random } = this.#options;
    const { request } = await this.#prepare(order);
    return decideProfile(acceptEvent({ bytes: order.event, runId: newRunId(clock, random), clock }), request);
  }

  /** From now on `run` takes clones that wait, where there is one. `mayFill`: asked before each of them is made. */
  async openPool(mode: AcceleratorMode, mayFill: () => boolean): Promise<Pool> {
    const { createPool } = await import('./compose.ts');
    const [repository, engine] = [await this.repository(), await this.engine(mode)];
    const [first] = repository.images.list();
    if (first === undefined) throw new MayflyError('E_SETUP_MISSING', 'there is no image');
    const composition = await this.#compose(engine, first, () => {});
    const template = async (profile: Profile, signal: AbortSignal): Promise<Template> => {
      const image = this.#used.get(profile.image.digest) ?? await repository.images.get(profile.image.name);
      return await engine.templates.get(image, profile.shape.ramBytes, { signal });
    };
    this.#pool = createPool({ ...composition, template }, mayFill);
    return this.#pool;
  }

  async #prepare(order: RunOrder) {
    const repository = await this.repository();
    const intel = await (await this.intel()).ready();
    const found = await intel?.threat(await this.#accepted(order.event), order.policy?.source ?? {});
    const { withThreat } = await import('./policy.ts');
    const policy = found === undefined ? order.policy : withThreat(order.policy, found);
    const choosing = policy === undefined ? order : { ...order, policy };
    const { image: reference, reasons } = await this.selectImage(choosing);
    const image = await repository.images.get(reference, { allowUnsigned: order.allowUnsigned === true });
    this.#used.set(image.contentDigest, image);
    const engine = await this.engine(order.accelerator);
    const request = {
      image: { name: image.name, digest: image.contentDigest, policy: image.manifest.policy, reasons },
      workload: order.workload,
      event: order.event,
      limits: order.limits,
      ...(order.paths === undefined ? {} : { paths: order.paths }),
      ...(order.floor === undefined ? {} : { floor: order.floor }),
      ...(order.network === undefined ? {} : { network: order.network }),
      minimumIsolation: order.accelerator === 'kvm' ? ('kvm' as const) : ('tcg' as const),
      ...(policy === undefined ? {} : { policy }),
      ...(order.runId === undefined ? {} : { runId: order.runId }),
      ...(order.keep === true ? { keep: true } : {}),
      ...(order.profile === undefined ? {} : { profile: order.profile }),
      ...(order.signal === undefined ? {} : { signal: order.signal }),
    };
    return { request, engine, image };
  }

  async #compose(engine: Engine, image: Image, onBuild: (step: string) => void): Promise<ComposeOptions> {
    const { realNetwork, resolversOf } = await import('./egress/network.ts');
    const { clock, random, disk, processes } = this.#options;
    const { kernel, initramfs } = await this.repository();
    const origin = {
      isolation: engine.vmm.isolation,
      vmm: engine.vmm.version,
      kernel: kernel.digest,
      agent: initramfs.digest,
      imageName: image.name,
      imageDigest: image.contentDigest,
    };
    const intel = await (await this.intel()).ready();
    return {
      home: this.home, clock, random, disk, processes,
      template: (profile, signal) => engine.templates.get(image, profile.shape.ramBytes, { onBuild, signal }),
      network: realNetwork(resolversOf(this.#options.environment('MAYFLY_RESOLVERS'))),
      vmm: engine.vmm, owner: await this.#owner(), origin: () => origin, signer: await this.#signer(),
      ...(intel === undefined ? {} : { denies: intel.denies }),
      snapshotBudgetBytes: limits.snapshotBudgetBytesDefault,
    };
  }

  /** The image of an order, as far as it can be told before there is a run. Rejects with E_EVENT_* and E_IMAGE_*. */
  async selectImage(order: ImageOrder): Promise<ImageChoice> {
    const { image: requested, functionClass, language, workload, policy } = order;
    const [{ selectImage }, repository] = await Promise.all([import('./selection.ts'), this.repository()]);
    const event = await this.#accepted(order.event);
    const name = workload.kind === 'runtime' ? workload.handler : (workload.argv[0] ?? '');
    return await selectImage({
      event, images: repository.images.list(), requested, functionClass, language, policy,
      isServer: workload.server !== undefined, function: { name, kind: workload.kind },
    });
  }

  /** Runs the conformance suite in clones of an image. Rejects as `checkImage` does. */
  async check(order: Omit<CheckOrder, 'token'>): Promise<CheckedImage> {
    const { checkImage } = await import('./conformance.ts');
    return await checkImage(this, { ...order, token: this.#options.random.bytes(16).toString('hex') });
  }

  /** Makes an image of a directory. Rejects as `buildImage` does. */
  async build(order: BuildOrder): Promise<BuiltImage> {
    const { buildImage } = await import('./build.ts');
    return await buildImage(this, order);
  }

  /** Threat intelligence of this home. */
  intel(): Promise<Intel> {
    this.#intel ??= import('./intel/intel.ts').then(({ Intel: Opened }) => {
      const { disk, clock, random, environment } = this.#options;
      return new Opened({ folder: join(this.home, 'intel'), disk, clock, random, environment });
    });
    return this.#intel;
  }

  /** What intelligence says about an event before it runs; undefined without intelligence. Rejects as `score`. */
  async threat(event: Buffer, source: EventSource): Promise<Threat | undefined> {
    const intel = await (await this.intel()).ready();
    if (intel === undefined) return undefined;
    return await intel.threat(await this.#accepted(event), source);
  }

  /** As the run will accept it. */
  async #accepted(bytes: Buffer): Promise<Event> {
    const { clock, random } = this.#options;
    const [{ acceptEvent }, { newRunId }] = await Promise.all([import('./event/accept.ts'), import('./core/ids.ts')]);
    return acceptEvent({ bytes, runId: newRunId(clock, random), clock });
  }

  /** Functions, tenants and events of the service. */
  async places(): Promise<Places> {
    const { openPlaces } = await import('./serve/places.ts');
    return openPlaces(this.#options);
  }

  /** `event`: UTF-8 JSON. Rejects with E_EVENT_INVALID, E_EVENT_TOO_LARGE, E_USAGE or E_INTEL_CONFIG. */
  async score(event: Buffer, sourceAddress: string | undefined): Promise<ScoredEvent> {
    const { clock, random } = this.#options;
    const [{ acceptEvent }, { newRunId }, { estimateComplexity }, { whereOf }, intel] = await Promise.all([
      import('./event/accept.ts'), import('./core/ids.ts'), import('./profile/complexity.ts'),
      import('./intel/observe.ts'), this.intel(),
    ]);
    const { cloudEvent, bytes } = acceptEvent({ bytes: event, runId: newRunId(clock, random), clock });
    const source = sourceAddress === undefined ? {} : { sourceAddress };
    const { assessment, observed, notes } = await intel.assess({
      value: cloudEvent, bytes: bytes.length, text: bytes, ...source,
    });
    const complexity = estimateComplexity({ ...observed, functionClass: 'web' });
    const attachments = observed.attachments.map(({ content: _content, ...attachment }) => attachment);
    const observables = observed.observables.map(({ kind, value, place }) => ({ kind, value, where: whereOf(place) }));
    return { ...assessment, observables, attachments, complexity, notes };
  }

  /** Makes the template of an image's smallest machine, unless there is one. Rejects as `run` does. */
  async warm(reference: string, mode: AcceleratorMode, watch: BuildWatch): Promise<{ readonly key: string }> {
    const [repository, engine, { ramClasses }] = await Promise.all([
      this.repository(), this.engine(mode), import('./profile/generate.ts'),
    ]);
    const image = await repository.images.get(reference);
    return await engine.templates.get(image, ramClasses[0] ?? 0, watch);
  }

  /** Templates on disk; `stale`: nothing on this machine can ask for it any more. Rejects with E_SETUP_MISSING. */
  async stock(): Promise<readonly (StockedTemplate & { readonly stale: boolean })[]> {
    const [{ templateKey, workloadId }, { listStock }, { ramClasses }] = await Promise.all([
      loadEngine(), import('./clone/stock.ts'), import('./profile/generate.ts'),
    ]);
    const [{ kernel, initramfs }, { version }, admin] = await Promise.all([
      this.repository(), this.qemu(), this.images(),
    ]);
    const { images } = await admin.catalogue.list();
    const current = new Set(images.filter(({ tags }) => tags.length > 0).flatMap(({ manifest }) => {
      const { name, runtime, fileSystem, layers } = manifest;
      return (['kvm', 'tcg'] as const).flatMap((isolation) => ramClasses.map((ramBytes) => {
        const maker = { kernel, initramfs, workloadId, vmm: { version, isolation } };
        return templateKey(maker, { name, runtime, layers, digest: fileSystem.digest }, ramBytes);
      }));
    }));
    const stock = await listStock(join(this.home, 'templates'));
    return stock.map((template) => ({ ...template, stale: !current.has(template.key) }));
  }

  /** Resolves to those that are gone: what is being built stays. */
  async discardTemplates(going: readonly StockedTemplate[]): Promise<readonly StockedTemplate[]> {
    const { discard } = await import('./clone/stock.ts');
    return await discard(join(this.home, 'templates'), going);
  }

  /** What was run here; `key`: by default this machine's own. */
  async evidence(key?: GivenKey): Promise<VerifyEvidence> {
    const { openEvidence } = await import('./records.ts');
    return await openEvidence(this.#options, key);
  }

  async forensics(): Promise<Forensics> {
    const { openForensics } = await import('./records.ts');
    return await openForensics({ ...this.#options, intel: () => this.intel() });
  }

  async #signer(): Promise<Signer> {
    const { openKeys } = await import('./image/keys.ts');
    return await openKeys(this.home, this.#options.random).own();
  }

  async #owner(): Promise<OwnerIdentity> {
    const { processes, pid } = this.#options;
    const startTicks = (await processes.startTicks(pid)) ?? 0n;
    return { pid, startTicks: String(startTicks), bootId: await processes.bootId() };
  }

  async #openEngine(mode: AcceleratorMode): Promise<Engine> {
    const { chooseAccelerator, createQemu, openTemplates, policyCompiler, workloadId } = await loadEngine();
    const { clock, processes } = this.#options;
    const [qemu, repository, builder] = await Promise.all([this.qemu(), this.repository(), this.#builder()]);
    const common = { ...qemu, jail: this.jail, clock };
    const accelerator = await chooseAccelerator({
      mode, clock, device: KVM_DEVICE, home: this.home, hostBootId: await processes.bootId(),
      kernelDigest: repository.kernel.digest, qemuVersion: qemu.version,
      trialBoot: () => this.#trialBoot({ ...common, accelerator: 'kvm' }, repository),
    });
    const vmm = createQemu({ ...common, accelerator: accelerator.isolation });
    const compile = policyCompiler({ home: this.home, builder });
    const { kernel, initramfs } = repository;
    const templates = openTemplates({
      home: this.home, kernel, initramfs, vmm, clock, workloadId, compile,
      builder, alive: (other) => this.#isAlive(other),
    });
    return { vmm, qemu, accelerator, templates };
  }

  async #trialBoot(engine: QemuOptions, { kernel, initramfs, images }: Repository): Promise<void> {
    const { disk, clock } = this.#options;
    // The smallest: what it can do beside booting does not matter.
    const [image] = images.list().toSorted((a, b) => a.bytes - b.bytes);
    if (image === undefined) throw new Error('there is no image to boot with');
    const { bootOnce, policyCompiler, trialBoot, workloadId } = await loadEngine();
    const builder = await this.#builder();
    await trialBoot({
      // Among the templates that are being built: should this process be killed, the next builder removes it as well.
      folder: join(this.home, 'templates', `building-${builder}-trial`),
      boot: (spec, prepare) => bootOnce(engine, spec, prepare),
      disk, clock, workloadId, millisMax: limits.trialBootMillisMax,
      compile: policyCompiler({ home: this.home, builder }),
      kernel: kernel.path, initramfs: initramfs.path, baseImage: image.path,
    });
  }

  async #builder(): Promise<string> {
    const { pid, startTicks } = await this.#owner();
    return `${pid}-${startTicks}`;
  }

  async #isAlive(builder: string): Promise<boolean> {
    const [pid, ticks] = builder.split('-');
    return (await this.#options.processes.startTicks(Number(pid))) === BigInt(ticks ?? '0');
  }
}

const KVM_DEVICE = '/dev/kvm';

export async function openApp(options: AppOptions): Promise<App> {
  const device = await stat(KVM_DEVICE).catch(() => undefined);
  return new App(options, device?.gid);
}
