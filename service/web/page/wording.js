// Texts for results and numbers, independent of the page and the network.

/** A share as a percentage with one decimal. */
export const percent = (share) => `${(share * 100).toFixed(1)} %`;

/** A number of things: "1 file", "2 files". */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** The kind of a label, for its colour: yes, no or none. */
export function kindOf(label, card) {
  if (!label) return "none";
  return label === (card?.positive_label ?? "COVID") ? "yes" : "no";
}

/** One sentence for each of the three probabilities; none if the model gives only one. */
export function sentences({ lesion_probability: lesion, covid_given_lesion: covid, probability }) {
  if (lesion === null) return [];
  return [
    `Lesions are present with a probability of ${percent(lesion)}.`,
    `If they are, COVID-19 rather than another disease is the cause with ${percent(covid)}.`,
    `So the probability of COVID-19 is ${percent(probability)}.`,
  ];
}

/** Text of the label column: the label, the reason for none, or the state. */
export function outcome({ state, answer, problem }) {
  if (state === "done") return answer.label ?? reason(answer);
  if (state === "failed") return headline(problem);
  return { waiting: "Waiting", sending: "Reading…", cancelled: "Cancelled" }[state];
}

/** Whether the probability that decides the label reaches its threshold, in words. */
export function relation({ probability, threshold, lesion_probability: lesion, lesion_threshold: least }) {
  const side = (value, limit) => `${value >= limit ? "at or above" : "below"} the threshold of ${percent(limit)}`;
  if (least) return `the label follows from the lesions, ${percent(lesion)}: ${side(lesion, least)}`;
  return threshold > 0 ? side(probability, threshold) : "the label follows from the lesions";
}

/** How often such a label was right on the test slices of the card; "" if the card has no such score. */
export function worth(label, card) {
  const { precision, sensitivity, specificity } = card.test_metrics;
  const ofHundred = (share) => Math.round(share * 100);
  const range = ([value, low, high]) => `${ofHundred(value)} of 100 (95 % interval ${ofHundred(low)} to ${ofHundred(high)})`;
  const share = ({ value, low, high }) => range([value, low, high]);
  const rest = ({ value, low, high }) => range([1 - value, 1 - high, 1 - low]);
  if (label !== card.positive_label) {
    return sensitivity ? `In the official test, ${rest(sensitivity)} ${card.positive_label} slices were missed: this result rules nothing out.` : "";
  }
  if (precision) return `In the official test, ${share(precision)} slices labelled ${label} were labelled correctly. This depends on how many of the patients have COVID-19.`;
  return specificity ? `In the official test, ${rest(specificity)} other slices were labelled ${label}.` : "";
}

/** The legend of the map. */
export function legend(hasLungs) {
  if (hasLungs) return "Colour: probability of lesion in the lungs. White line: 0.25. Blue line: the lungs.";
  return "Colour: activity of the network, relative to the highest in this slice. White line: 0.25. Do not compare two slices by it.";
}

/** The score of the checks in a sentence. */
export function checkScore({ out_of_distribution: { score, threshold, flagged } }, card) {
  if (card && Object.keys(card.checks).length === 0) return "This model does not check images.";
  const limit = `above ${threshold.toFixed(0)}`;
  return flagged ? `Check score ${score.toFixed(2)}, ${limit}.` : `${score.toFixed(2)}; ${limit} there is no result`;
}

/** "about 40 s left" */
export function timeLeft(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.ceil(seconds / 5) * 5)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

/** The part of the lungs that a band of severity stands for (MosMedData). */
export const SEVERITY = { "CT-0": "none", "CT-1": "up to 25 %", "CT-2": "25 to 50 %", "CT-3": "50 to 75 %", "CT-4": "above 75 %" };

const ADVICE = {
  no_lungs: "No lungs found",
  no_slices: "No CT slices found",
  not_read: "Not read: between two slices that were",
  wrong_window: "Not a lung window",
  turned: "Turned or upside down",
  inverted: "Inverted picture",
  several_panels: "Several slices in one image",
  unsupported_image_type: "Not a readable image",
  damaged_image: "Damaged file",
  damaged_archive: "Damaged zip",
  empty_file: "Empty file",
  image_too_small: "Image too small",
  too_many_pixels: "Image too large",
  body_too_large: "Too large",
  several_frames: "Several images in one file",
};

/** A headline for a problem. */
export const headline = (problem) => ADVICE[problem.code] ?? problem.title;

/** A code of a reason in words. */
export const reasonText = (code) => ADVICE[code] ?? code.replaceAll("_", " ");

/** Why a result has no label. */
export const reason = ({ out_of_distribution: { reason: code } }) => ADVICE[code] ?? "Out of distribution";

/** What to send instead of an image that failed a check. */
export function remedy({ out_of_distribution: { reason: code } }) {
  return {
    no_lungs: "Send one axial chest CT slice that shows lungs.",
    turned: "Send the slice with the spine at the bottom, the patient's left on the right of the picture.",
    inverted: "Send the picture with air black and bone white.",
    wrong_window: "Export the slice in a lung window (width 1500, level -600), or send its DICOM file.",
    several_panels: "Cut out one slice, or export it alone, and send that.",
  }[code] ?? "Send one axial chest CT slice.";
}
