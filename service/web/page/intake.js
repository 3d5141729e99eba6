// Files, folders and zips as sources of slices: `{ name, read, problem }`, in the order of series or else of names.

import { placeOf } from "./dicom.js";
import { membersOf, ZipError } from "./zip.js";

const MAX_SOURCES = 5000;
const HEAD = 352; // bytes: the header of a NIfTI volume ends with its magic number
const LITTER = /(^|\/)(\.|__MACOSX\/|DICOMDIR$|Thumbs\.db$|desktop\.ini$)/i; // hidden files and indices, as on the command line

const order = new Intl.Collator("en", { numeric: true });

/** Sources in these files, and a note on what was skipped ("" if nothing). */
export async function sourcesOf(files) {
  const found = [];
  let hidden = 0;
  for (const file of files) {
    const path = pathOf(file);
    if (files.length > 1 && LITTER.test(path)) hidden += 1;
    else found.push(...(await within(file, path)));
  }
  const sources = found.filter((each) => !each.hidden);
  hidden += found.length - sources.length;
  sort(sources);
  const notes = [];
  if (hidden) notes.push(`${hidden} hidden or index ${hidden === 1 ? "file" : "files"} skipped`);
  if (sources.length > MAX_SOURCES) notes.push(`only the first ${MAX_SOURCES} of ${sources.length} files taken`);
  return { sources: sources.slice(0, MAX_SOURCES), note: notes.join(" · ") };
}

/** Sort by name; the files of a DICOM series follow its first one, by their instance numbers. */
function sort(sources) {
  sources.sort((one, other) => order.compare(one.name, other.name));
  const first = new Map();
  for (const { name, place } of sources) if (place && !first.has(place.series)) first.set(place.series, name);
  const begin = ({ name, place }) => (place ? first.get(place.series) : name);
  sources.sort((one, other) => order.compare(begin(one), begin(other)) || (one.place?.number ?? 0) - (other.place?.number ?? 0));
}

/** Files of a drop event, with all files in dropped folders. Call it while the event is handled. */
export async function filesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null);
  const files = items.map((item) => item.getAsFile());
  const all = await Promise.all(entries.map((entry, index) => (entry?.isDirectory ? filesBelow(entry) : [files[index]])));
  return all.flat().filter(Boolean);
}

async function filesBelow(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (let some = [null]; some.length > 0;) { // a reader returns a hundred entries at a time
    some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    entries.push(...some);
  }
  const files = [];
  for (const entry of entries) {
    if (entry.isDirectory) files.push(...(await filesBelow(entry)));
    else files.push(await fileOf(entry));
  }
  return files;
}

function fileOf(entry) {
  return new Promise((resolve) => {
    const named = (file) => resolve(Object.assign(file, { path: entry.fullPath.replace(/^\//, "") }));
    entry.file(named, () => named(new File([], entry.name))); // reading it will say that it is empty
  });
}

const pathOf = (file) => file.path || file.webkitRelativePath || file.name || "pasted image";

async function within(file, name) {
  const head = await headOf(file);
  if (isZip(head, name)) return membersIn(file, name);
  const place = starts(head.slice(128), 0x44, 0x49, 0x43, 0x4d) ? await placeOf(file) : null;
  return [{ name, read: async () => file, problem: volume(head, name), place }];
}

async function membersIn(file, name) {
  try {
    const members = await membersOf(file);
    if (members.length === 0) throw new ZipError("The zip holds no files.");
    return members.map((member) => ({
      name: `${name}!${member.name}`,
      hidden: LITTER.test(member.name),
      problem: volume(null, member.name),
      read: member.read,
    }));
  } catch (error) {
    if (!(error instanceof ZipError)) throw error;
    return [{ name, problem: { code: "unreadable_zip", title: "The zip cannot be read", detail: error.message } }];
  }
}

async function headOf(file) {
  try {
    return new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  } catch {
    return new Uint8Array(); // a folder or a deleted file: sending it gives the error
  }
}

const starts = (head, ...bytes) => bytes.every((byte, index) => head?.[index] === byte);

/** Whether it is a zip: by content, and by name because office documents are zips too. */
const isZip = (head, name) => starts(head, 0x50, 0x4b) && (/\.zip$/i.test(name) || !/\.[a-z0-9]+$/i.test(name));

/** The problem of a file that is not a single slice, or null. */
function volume(head, name) {
  const magic = head && String.fromCharCode(...head.slice(344, 347));
  if (/\.(nii|nii\.gz|hdr|img)$/i.test(name) || magic === "n+1" || magic === "ni1") {
    return {
      code: "nifti_volume",
      title: "A NIfTI volume",
      detail: "This page reads slices. Use the command line, which reads every axial slice: covid-ct predict scan.nii.gz --output scan.csv",
    };
  }
  if (/\.(zip|gz|tgz|tar|7z|rar|bz2|xz)$/i.test(name) || starts(head, 0x1f, 0x8b)) {
    return { code: "packed_file", title: "Compressed file", detail: "This page reads zip files only, and no zip files inside them. Unpack it, and drop the folder." };
  }
  return null;
}
