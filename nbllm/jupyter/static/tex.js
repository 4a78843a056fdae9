// What TeX's commands for mathematics stand for: characters, fonts, environments. Tables only.

const paired = (text) => { // "alpha α beta β", by name
  const parts = text.trim().split(/\s+/);
  return Object.fromEntries(parts.flatMap((part, n) => (n % 2 ? [] : [[part, parts[n + 1]]])));
};
const listed = (text) => new Set(text.trim().split(/\s+/));

const GREEK = paired(`alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι
  kappa κ lambda λ mu μ nu ν xi ξ omicron ο pi π varpi ϖ rho ρ varrho ϱ sigma σ varsigma ς tau τ upsilon υ phi ϕ
  varphi φ chi χ psi ψ omega ω ell ℓ imath ı jmath ȷ`);
const ORDINARY = paired(`Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω infty ∞
  partial ∂ nabla ∇ emptyset ∅ varnothing ∅ aleph ℵ beth ℶ hbar ℏ Re ℜ Im ℑ wp ℘ forall ∀ exists ∃ nexists ∄ top ⊤ bot ⊥
  angle ∠ triangle △ square □ Box □ blacksquare ■ qed ∎ prime ′ degree ° ldots … dots … dotsc … cdots ⋯ dotsb ⋯ vdots ⋮
  ddots ⋱ clubsuit ♣ diamondsuit ♢ heartsuit ♡ spadesuit ♠ flat ♭ sharp ♯ natural ♮ checkmark ✓ dag † dagger † ddagger ‡
  S § P ¶ pounds £ euro € % % $ $ # # & & _ _`);
const OPERATORS = paired(`pm ± mp ∓ times × div ÷ cdot · ast ∗ star ⋆ circ ∘ bullet • oplus ⊕ ominus ⊖ otimes ⊗ odot ⊙
  cap ∩ cup ∪ uplus ⊎ sqcap ⊓ sqcup ⊔ vee ∨ lor ∨ wedge ∧ land ∧ setminus ∖ smallsetminus ∖ wr ≀ amalg ⨿ neg ¬ lnot ¬
  leq ≤ le ≤ geq ≥ ge ≥ neq ≠ ne ≠ lt < gt > ll ≪ gg ≫ leqslant ⩽ geqslant ⩾ approx ≈ sim ∼ simeq ≃ cong ≅ equiv ≡
  propto ∝ prec ≺ succ ≻ preceq ⪯ succeq ⪰ doteq ≐ triangleq ≜ coloneqq ≔ in ∈ notin ∉ ni ∋ subset ⊂ supset ⊃
  subseteq ⊆ supseteq ⊇ subsetneq ⊊ supsetneq ⊋ sqsubseteq ⊑ mid ∣ nmid ∤ parallel ∥ perp ⟂ vdash ⊢ dashv ⊣ models ⊨
  asymp ≍ bowtie ⋈ to → rightarrow → gets ← leftarrow ← leftrightarrow ↔ Rightarrow ⇒ Leftarrow ⇐ Leftrightarrow ⇔
  implies ⟹ impliedby ⟸ iff ⟺ longrightarrow ⟶ longleftarrow ⟵ Longrightarrow ⟹ Longleftarrow ⟸ Longleftrightarrow ⟺
  mapsto ↦ longmapsto ⟼ hookrightarrow ↪ hookleftarrow ↩ rightharpoonup ⇀ rightleftharpoons ⇌ uparrow ↑ downarrow ↓
  updownarrow ↕ Uparrow ⇑ Downarrow ⇓ nearrow ↗ searrow ↘ swarrow ↙ nwarrow ↖ leadsto ⇝ rightsquigarrow ⇝ therefore ∴
  because ∵ colon :`);
const BIG = paired(`sum ∑ prod ∏ coprod ∐ bigcup ⋃ bigcap ⋂ bigoplus ⨁ bigotimes ⨂ bigodot ⨀ bigvee ⋁ bigwedge ⋀
  bigsqcup ⨆ biguplus ⨄`);
const INTEGRALS = paired("int ∫ iint ∬ iiint ∭ oint ∮ oiint ∯");
const CHARACTERS = { ...GREEK, ...ORDINARY, ...OPERATORS, ...BIG, ...INTEGRALS };

const FUNCTIONS = listed(`sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan log ln lg exp dim ker deg hom
  arg`);
const LIMITS = paired(`lim lim max max min min sup sup inf inf limsup lim_sup liminf lim_inf det det gcd gcd Pr Pr
  argmax arg_max argmin arg_min`); // functions with something below

const OPEN = paired("( ( [ [ { { lbrace { lbrack [ langle ⟨ lfloor ⌊ lceil ⌈ lvert | lVert ‖");
const CLOSE = paired(") ) ] ] } } rbrace } rbrack ] rangle ⟩ rfloor ⌋ rceil ⌉ rvert | rVert ‖");
const BARS = paired("| | ‖ ‖ vert | Vert ‖ / / backslash \\ uparrow ↑ downarrow ↓ < ⟨ > ⟩"); // which \left takes, too

const SPACES = { ",": 0.17, ":": 0.22, ">": 0.22, ";": 0.28, "!": -0.17, " ": 0.3, "\n": 0.3, thinspace: 0.17,
  enspace: 0.5, quad: 1, qquad: 2 }; // em
const SIZES = { big: 1.2, Big: 1.8, bigg: 2.4, Bigg: 3 }; // em

const ABOVE = paired(`hat ^ widehat ^ bar ¯ vec → overrightarrow → overleftarrow ← dot ˙ ddot ¨ tilde ~ widetilde ~
  check ˇ breve ˘ acute ´ grave \` mathring ˚ overbrace ⏞ overparen ⏜`);
const BELOW = paired("underbrace ⏟ underparen ⏝");
const WIDE = listed(`widehat overrightarrow overleftarrow widetilde overbrace overparen underbrace
  underparen`);

// Where the letters of a font begin: A, a, 0, Α, α.
const STARTS = ["AZ", "az", "09", "ΑΩ", "αω"];
const FONTS = { mathbf: [0x1d400, 0x1d41a, 0x1d7ce, 0x1d6a8, 0x1d6c2],
  boldsymbol: [0x1d468, 0x1d482, 0x1d7ce, 0x1d71c, 0x1d736],
  mathbb: [0x1d538, 0x1d552, 0x1d7d8], mathcal: [0x1d49c, 0x1d4b6], mathfrak: [0x1d504, 0x1d51e],
  mathsf: [0x1d5a0, 0x1d5ba, 0x1d7e2], mathtt: [0x1d670, 0x1d68a, 0x1d7f6], mathit: [], mathrm: [] };
const OTHER_FONTS = { mathscr: "mathcal", Bbb: "mathbb", bm: "boldsymbol", pmb: "boldsymbol", mathnormal: "mathit" };
const SWITCHES = { rm: "mathrm", bf: "mathbf", it: "mathit", cal: "mathcal" }; // up to the end of the group
// Letters of fonts that have had a place of their own since before, by the place that is empty instead.
const HOLES = paired(`1d53a ℂ 1d53f ℍ 1d545 ℕ 1d547 ℙ 1d548 ℚ 1d549 ℝ 1d551 ℤ 1d49d ℬ 1d4a0 ℰ 1d4a1 ℱ 1d4a3 ℋ 1d4a4 ℐ
  1d4a7 ℒ 1d4a8 ℳ 1d4ad ℛ 1d4ba ℯ 1d4bc ℊ 1d4c4 ℴ 1d506 ℭ 1d50b ℌ 1d50c ℑ 1d515 ℜ 1d51d ℨ`);
const TEXTS = listed("text textrm textnormal mbox hbox textit textbf textsf texttt");

const ENVIRONMENTS = { matrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"],
  vmatrix: ["|", "|"], Vmatrix: ["‖", "‖"], smallmatrix: ["", ""], array: ["", ""],
  cases: ["{", ""], rcases: ["", "}"], aligned: ["", ""],
  align: ["", ""], alignat: ["", ""], alignedat: ["", ""], split: ["", ""], eqnarray: ["", ""], equation: ["", ""],
  gather: ["", ""], gathered: ["", ""], multline: ["", ""] }; // and what stands around them
const ALIGNED = listed("aligned align alignat alignedat split eqnarray");
const WITH_COLUMNS = listed("array alignat alignedat"); // these say first how many columns, or how they are set
const DIVIDED = { over: {}, choose: { linethickness: "0" }, atop: { linethickness: "0" } };
const SKIPPED = listed("nonumber notag hline relax hfill allowbreak nobreak displaylimits scriptstyle");
