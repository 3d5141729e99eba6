// Texts for results and numbers, independent of the page and the network. All labels come from here.

/** A share as a percentage with one decimal. */
export const percent = (share) => `${(share * 100).toFixed(1)} %`;

const ofHundred = (share) => Math.round(share * 100);

/** "77 of 100 (95 % interval 70 to 84)"; `flip` counts the remaining ones. */
function counted({ value, low, high }, flip = false) {
  const [middle, from, to] = flip ? [1 - value, 1 - high, 1 - low] : [value, low, high];
  return `${ofHundred(middle)} of 100 (95 % interval ${ofHundred(from)} to ${ofHundred(to)})`;
}

/** The label of a result; "" if a check failed, because the probability is then meaningless. */
export const labelOf = (answer) => (answer.out_of_distribution.flagged ? "" : answer.label);

/** The kind of a result, for its colour: yes, no or none. */
export function kindOf(answer) {
  if (answer.out_of_distribution.flagged) return "none";
  const { probability, threshold, lesion_probability: lesion, lesion_threshold: least } = answer;
  return probability >= threshold && (least === null || lesion >= least) ? "yes" : "no";
}

/** The two factors of the probability; "" if the model does not give them. */
export function answers({ lesion_probability: lesion, covid_given_lesion: covid }, card) {
  if (lesion === null) return "";
  const found = lesion >= (card?.lesion_thresholds.triage ?? 0.5) ? "yes" : "no";
  return `Lesions: ${found}, ${lesion.toFixed(2)}; like COVID-19 rather than other disease: ${covid.toFixed(2)}`;
}

/** Text of the label column: the label, the reason for none, or the state. */
export function outcome({ state, answer, problem }) {
  if (state === "done") return labelOf(answer) || reason(answer);
  if (state === "failed") return headline(problem);
  return { waiting: "Waiting", sending: "Examining…", cancelled: "Cancelled" }[state] ?? "";
}

/** Whether the probability that decides the label reaches its threshold, in words. */
export function relation({ probability, threshold, lesion_probability: lesion, lesion_threshold: least }) {
  const side = (value, limit) => `${value >= limit ? "at or above" : "below"} the threshold of ${percent(limit)}`;
  return least ? `the label follows from the lesions, ${percent(lesion)}: ${side(lesion, least)}` : side(probability, threshold);
}

/** How often such a result was right on the test slices of the card; "" if the card has no such score. */
export function worth(label, card) {
  const { precision, sensitivity, specificity } = card.test_metrics;
  const mix = "This depends on how many of the patients have COVID-19.";
  if (label === card.positive_label) {
    if (precision) return `In the official test, ${counted(precision)} slices labelled ${label} were labelled correctly. ${mix}`;
    if (specificity) return `In the official test, ${counted(specificity, true)} other slices were labelled ${label}.`;
  } else if (sensitivity) {
    return `In the official test, ${counted(sensitivity, true)} ${card.positive_label} slices were missed: this result rules nothing out.`;
  }
  return "";
}

/** The legend of the map. */
export function legend({ lungs }) {
  if (!lungs) return "Colour: activity of the network at each place, relative to the highest in this slice. White line: 0.25. Do not compare two slices by it.";
  return "Colour: probability of lesion inside the lungs, on the same scale for every slice. White line: 0.25. Blue line: the lungs.";
}

/** The check score in a sentence. */
export function checkScore({ out_of_distribution: { score, threshold, flagged } }, card) {
  if (card && Object.keys(card.checks).length === 0) return "This model does not check images.";
  const limit = `above ${threshold.toFixed(0)}`;
  return flagged ? `Check score ${score.toFixed(2)}, ${limit}.` : `${score.toFixed(2)}; ${limit} there is no result.`;
}

/** "240 ms in the service: decoding 4.0, waiting 0.1, network 223" */
export function timing(milliseconds) {
  const total = Object.values(milliseconds).reduce((sum, each) => sum + each, 0);
  const { decode, queue, inference } = milliseconds;
  const whole = (number) => (number < 10 ? number.toFixed(1) : number.toFixed(0));
  return `${whole(total)} ms in the service: decoding ${whole(decode)}, waiting ${whole(queue)}, network ${whole(inference)}`;
}

/** "about 40 s left" */
export function timeLeft(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.ceil(seconds / 5) * 5)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

const ADVICE = {
  no_lungs: "No lungs found",
  wrong_window: "Not a lung window",
  turned: "Turned or upside down",
  inverted: "Inverted picture",
  several_panels: "Several slices in one image",
  unsupported_image_type: "Not a readable image",
  damaged_image: "Damaged file",
  empty_file: "Empty file",
  image_too_small: "Image too small",
  too_many_pixels: "Image too large",
  body_too_large: "File too large",
  several_frames: "Several images in one file",
  unreadable_file: "Unreadable file",
  unreachable: "Service not reached",
};

/** A headline for a problem. */
export const headline = (problem) => ADVICE[problem.code] ?? problem.title;

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
