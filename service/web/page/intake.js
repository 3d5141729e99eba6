// Files of a drop event, with all files in dropped folders; and drawn samples.

/** Whether a file is a picture, which is read on its own; all others are read as one study. */
export const isPicture = (file) => /^image\/(?!dicom)/.test(file.type);

/** The path of a file in a dropped or chosen folder, or its name. */
export const nameOf = (file) => file.path || file.webkitRelativePath || file.name || "pasted image";

/** A drawn sample that the service has next to this page. */
export async function sample(name) {
  const response = await fetch(`page/${name}`);
  return new File([await response.blob()], name, { type: name.endsWith(".jpg") ? "image/jpeg" : "application/dicom" });
}

/** Files of a drop event. Call it while the event is handled. */
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
  for (const entry of entries) files.push(...(entry.isDirectory ? await filesBelow(entry) : [await fileOf(entry)]));
  return files;
}

function fileOf(entry) {
  return new Promise((resolve) => {
    const named = (file) => resolve(Object.assign(file, { path: entry.fullPath.replace(/^\//, "") }));
    entry.file(named, () => named(new File([], entry.name))); // the service will say that it is empty
  });
}
